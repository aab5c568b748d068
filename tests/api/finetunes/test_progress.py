"""What other requests see while an upload is being checked, and simultaneous uploads of one finetune."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.finetunes.upload import STORING, VERIFYING
from intaglio.lora.peft.reader import ReadStep
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import RUN
from tests.api.finetunes.calls import (
    CONFIG,
    FINETUNES,
    WEIGHTS,
    create,
    error_of,
    read,
    stored_files,
    upload,
    upload_both,
)
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.paused_check import DEADLINE_S, PausedCheck, in_thread


def test_a_running_check_is_shown_with_its_step(
    client: TestClient, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(client)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    weights = (adapter_folder / WEIGHTS).read_bytes()
    uploading = in_thread(lambda: upload(client, "mine", WEIGHTS, weights))
    assert held.reached.wait(DEADLINE_S)
    found = read(client)
    assert (found["state"], found["missing_files"]) == ("checking", [WEIGHTS])
    check = found["check"]
    assert (check["file_name"], check["step"]) == (WEIGHTS, "shapes")
    assert check["started_at"] <= check["step_since"]
    assert client.get(FINETUNES).json()["result"][0]["state"] == "checking"
    answer = client.post(RUN, json={"prompt": "x", "lora": "mine"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, 3039)
    held.resume.set()
    assert uploading.result(DEADLINE_S).json()["result"]["state"] == "ready"
    assert "check" not in read(client)


def test_a_replacements_check_is_shown_beside_the_version_that_serves(
    client: TestClient, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    config = (adapter_folder / CONFIG).read_bytes() + b"\n"
    uploading = in_thread(lambda: upload(client, "mine", CONFIG, config, keep_other_file="true"))
    assert held.reached.wait(DEADLINE_S)
    found = read(client)
    assert (found["state"], found["version"], "check" in found) == ("ready", 1, False)
    assert (found["pending"]["state"], found["pending"]["check"]["step"]) == ("checking", "shapes")
    assert client.post(RUN, json={"prompt": "x", "lora": "mine"}).status_code == 200
    held.resume.set()
    assert uploading.result(DEADLINE_S).json()["result"]["version"] == 2


def test_a_delete_during_a_check_answers_at_once_and_the_upload_is_not_found(
    client: TestClient, settings: Settings, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(client)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    weights = (adapter_folder / WEIGHTS).read_bytes()
    uploading = in_thread(lambda: upload(client, "mine", WEIGHTS, weights))
    assert held.reached.wait(DEADLINE_S)
    assert client.delete(f"{FINETUNES}/mine").status_code == 200
    held.resume.set()
    late = uploading.result(DEADLINE_S)
    assert (late.status_code, error_of(late)["code"]) == (404, 3037)
    assert stored_files(settings.data_path) == []


@pytest.mark.parametrize("same", [True, False])
def test_the_second_of_two_uploads_of_one_file_waits_and_both_get_a_response(
    client: TestClient,
    settings: Settings,
    base_config: ModelConfig,
    adapter_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    same: bool,
) -> None:
    other = adapter_folder if same else write_peft_adapter(tmp_path, base_config, seed=7)
    create(client)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    held = PausedCheck(monkeypatch, ReadStep.SHAPES)
    weights, others = ((folder / WEIGHTS).read_bytes() for folder in (adapter_folder, other))
    first = in_thread(lambda: upload(client, "mine", WEIGHTS, weights))
    assert held.reached.wait(DEADLINE_S)
    later = in_thread(lambda: upload(client, "mine", WEIGHTS, others))
    held.resume.set()
    answers = [uploading.result(DEADLINE_S) for uploading in (first, later)]
    assert [answer.status_code for answer in answers] == [200, 200]
    found = read(client)
    assert (found["state"], found["version"]) == ("ready", 1)
    assert answers[0].json()["result"]["id"] in [file["sha256"] for file in found["files"]]
    if same:
        assert "pending" not in found
    else:  # other weights begin a replacement
        assert found["pending"]["missing_files"] == [CONFIG]
    assert len(stored_files(settings.data_path)) == (4 if same else 5)


def test_every_step_and_field_is_documented(client: TestClient, adapter_folder: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "http_api.md").read_text()
    assert [step for step in (*ReadStep, VERIFYING, STORING) if f"`{step}`" not in page] == []
    create(client)
    upload_both(client, adapter_folder)
    found = upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes()).json()["result"]
    names = {*read(client), *found["pending"], *found["pending"]["files"][0]} - {
        "id",
        "account_id",
        "created_at",
        "modified_at",
    }
    assert [name for name in sorted(names) if name not in page] == []
