"""A ready finetune gets other files: the old version serves until the new one is verified."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import RUN
from tests.api.finetunes.calls import (
    CONFIG,
    FINETUNES,
    WEIGHTS,
    create,
    error_of,
    files_of,
    read,
    stored_files,
    upload,
    upload_both,
)
from tests.helpers.adapters import write_peft_adapter


@pytest.fixture(scope="session")
def new_folder(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another training: each of its files would pass with the other file of `adapter_folder`."""
    return write_peft_adapter(tmp_path_factory.mktemp("new"), base_config, seed=5, alpha=32)


def digest_of(folder: Path, config: ModelConfig) -> str:
    return read_peft_adapter(folder, config, AdapterLimits()).digest


def answering_digest(client: TestClient, lora: str = "mine") -> str:
    """Which adapter answers a request now."""
    response = client.post(RUN, json={"prompt": "x", "lora": lora})
    assert response.status_code == 200, response.text
    return str(response.headers["intaglio-adapter-digest"])


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("order", [(CONFIG, WEIGHTS), (WEIGHTS, CONFIG)])
def test_the_old_version_serves_until_the_new_one_is_complete(
    client: TestClient, adapter_folder: Path, new_folder: Path, base_config: ModelConfig, order: tuple[str, str]
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    old, new = digest_of(adapter_folder, base_config), digest_of(new_folder, base_config)
    before = read(client)
    assert (before["version"], before["digest"]) == (1, old)

    half = upload(client, "mine", order[0], (new_folder / order[0]).read_bytes()).json()["result"]
    assert (half["state"], half["version"]) == ("ready", 1)
    assert (half["pending"]["state"], half["pending"]["version"]) == ("awaiting files", 2)
    assert half["pending"]["missing_files"] == [order[1]]
    during = read(client)
    assert (during["state"], during["version"], during["digest"]) == ("ready", 1, old)
    assert files_of(during) == files_of(before)
    assert files_of(during["pending"]) == {order[0]: sha256_of(new_folder / order[0])}
    assert answering_digest(client) == old

    whole = upload(client, "mine", order[1], (new_folder / order[1]).read_bytes()).json()["result"]
    assert (whole["state"], whole["version"], "pending" in whole) == ("ready", 2, False)
    after = read(client)
    assert (after["version"], after["digest"], "pending" in after) == (2, new, False)
    assert after["modified_at"] >= before["modified_at"]
    assert after["id"] == before["id"]
    assert files_of(after) == {name: sha256_of(new_folder / name) for name in (CONFIG, WEIGHTS)}
    assert answering_digest(client) == answering_digest(client, after["id"]) == new


def test_a_refused_replacement_says_why_and_changes_nothing_else(
    client: TestClient, settings: Settings, adapter_folder: Path, new_folder: Path, base_config: ModelConfig
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    old = digest_of(adapter_folder, base_config)
    before = stored_files(settings.data_path)
    bad = (new_folder / WEIGHTS).read_bytes()[:-1]
    refused = upload(client, "mine", WEIGHTS, bad)
    assert (refused.status_code, error_of(refused)["code"]) == (400, 5006)
    found = read(client)
    assert (found["state"], found["version"], "reason" in found) == ("ready", 1, False)
    assert found["pending"]["state"] == "refused"
    assert found["pending"]["reason"] in error_of(refused)["message"]
    assert answering_digest(client) == old
    assert stored_files(settings.data_path) == before
    upload_both(client, new_folder)
    assert answering_digest(client) == digest_of(new_folder, base_config)
    assert "pending" not in read(client)


def test_one_file_alone_replaces_when_the_uploader_says_so(
    client: TestClient, adapter_folder: Path, new_folder: Path, base_config: ModelConfig, tmp_path: Path
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    upload(client, "mine", CONFIG, (new_folder / CONFIG).read_bytes())  # waits, and is not what is joined below
    weights = (new_folder / WEIGHTS).read_bytes()
    done = upload(client, "mine", WEIGHTS, weights, keep_other_file="true").json()["result"]
    assert (done["state"], done["version"], "pending" in done) == ("ready", 2, False)
    (tmp_path / CONFIG).write_bytes((adapter_folder / CONFIG).read_bytes())
    (tmp_path / WEIGHTS).write_bytes(weights)
    assert answering_digest(client) == digest_of(tmp_path, base_config)


def test_keeping_the_other_file_is_refused_before_the_first_version(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    response = upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes(), keep_other_file="true")
    assert response.status_code == 400
    assert "not ready" in error_of(response)["message"]
    response = upload(client, "mine", CONFIG, b"{}", keep_other_file="perhaps")
    assert response.status_code == 400
    assert "keep_other_file" in error_of(response)["message"]


def test_the_upload_that_completed_a_version_can_be_sent_again(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    upload_both(client, adapter_folder)
    before = read(client)
    again = upload(client, "mine", WEIGHTS, (adapter_folder / WEIGHTS).read_bytes())
    assert again.status_code == 200
    assert again.json()["result"]["id"] == files_of(before)[WEIGHTS]
    assert read(client) == before


def test_the_same_two_files_again_are_no_new_version(
    client: TestClient, settings: Settings, adapter_folder: Path
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    before, files = read(client), stored_files(settings.data_path)
    upload_both(client, adapter_folder)
    after = read(client)
    assert (after["version"], after["digest"], "pending" in after) == (1, before["digest"], False)
    assert stored_files(settings.data_path) == files


def test_lists_have_the_version_and_leave_out_files(client: TestClient, adapter_folder: Path, new_folder: Path) -> None:
    create(client, public=True)
    numbers = [read(client)["version"]]
    for folder in (adapter_folder, new_folder):
        upload_both(client, folder)
        numbers.append(read(client)["version"])
    assert numbers == [0, 1, 2]
    for path in (FINETUNES, f"{FINETUNES}/public"):
        (item,) = client.get(path).json()["result"]
        assert item["version"] == 2
        assert "files" not in item


def test_read_one_shows_what_was_uploaded_and_what_is_missing(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    assert (read(client)["files"], read(client)["missing_files"]) == ([], [CONFIG, WEIGHTS])
    content = (adapter_folder / WEIGHTS).read_bytes()
    upload(client, "mine", WEIGHTS, content)
    found = read(client)
    (file,) = found["files"]
    sha256 = hashlib.sha256(content).hexdigest()
    assert file == {"file_name": WEIGHTS, "size": len(content), "sha256": sha256, "uploaded_at": file["uploaded_at"]}
    assert found["created_at"] <= file["uploaded_at"] <= found["modified_at"]
    assert found["missing_files"] == [CONFIG]
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    ready: dict[str, Any] = read(client)
    assert len(ready["files"]) == 2
    assert "missing_files" not in ready
