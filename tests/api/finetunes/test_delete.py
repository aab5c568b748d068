from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

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
from tests.helpers.fakes import FakeLLM


@pytest.mark.parametrize("by", ["name", "id"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_deleted_finetune_is_gone_and_answers_no_more(
    client: TestClient, llm: FakeLLM, settings: Settings, adapter_folder: Path, by: str, slash: str
) -> None:
    made = create(client).json()["result"]
    upload_both(client, adapter_folder)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())  # a candidate goes too
    response = client.delete(f"{FINETUNES}/{made[by]}{slash}")
    assert response.status_code == 200
    assert response.json()["success"] is True
    assert response.json()["result"] == {
        "id": made["id"], "name": "mine", "model": made["model"], "deleted": True,
    }  # fmt: skip
    assert stored_files(settings.data_path) == []
    for name in ("mine", made["id"]):
        for answer in (
            client.delete(f"{FINETUNES}/{name}"),
            client.get(f"{FINETUNES}/{name}"),
            client.get(f"{FINETUNES}/{name}/finetune-assets/{CONFIG}"),
            upload(client, name, CONFIG, b"{}"),
            client.post(RUN, json={"prompt": "x", "lora": name}),
        ):
            assert (answer.status_code, error_of(answer)["code"]) == (404, 3037)
    assert llm.submitted == []
    assert client.get(FINETUNES).json()["result"] == []


def test_the_name_and_the_quota_of_a_deleted_finetune_are_free_at_once(
    client: TestClient, adapter_folder: Path
) -> None:
    ids = []
    for _ in range(6):  # more than an account may have at a time
        ids.append(create(client).json()["result"]["id"])
        upload_both(client, adapter_folder)
        assert read(client)["version"] == 1
        assert client.delete(f"{FINETUNES}/mine").status_code == 200
    assert len(set(ids)) == 6


def test_files_shared_with_another_finetune_stay_after_a_delete(
    client: TestClient, settings: Settings, adapter_folder: Path
) -> None:
    create(client, "one")
    upload_both(client, adapter_folder, "one")
    files = stored_files(settings.data_path)
    create(client, "two")
    upload_both(client, adapter_folder, "two")
    assert client.delete(f"{FINETUNES}/one").status_code == 200
    assert stored_files(settings.data_path) == files
    assert client.post(RUN, json={"prompt": "x", "lora": "two"}).status_code == 200
    content = client.get(f"{FINETUNES}/two/finetune-assets/{WEIGHTS}").content
    assert content == (adapter_folder / WEIGHTS).read_bytes()


def test_only_the_account_itself_deletes_its_finetunes(client: TestClient, adapter_folder: Path) -> None:
    made = create(client, public=True).json()["result"]
    upload_both(client, adapter_folder)
    others = FINETUNES.replace("acc0", "other")
    theirs = client.delete(f"{others}/{made['id']}")
    assert theirs.status_code == 400
    assert "belongs to another account" in error_of(theirs)["message"]
    for name in ("mine", str(uuid4()), "public"):
        missing = client.delete(f"{others}/{name}")
        assert (missing.status_code, error_of(missing)["code"]) == (404, 3037)
    assert client.post(RUN, json={"prompt": "x", "lora": "mine"}).status_code == 200
    assert client.delete(f"{FINETUNES}/mine").status_code == 200
    assert client.get(f"{FINETUNES}/public").json()["result"] == []


def test_the_list_cannot_be_deleted(client: TestClient) -> None:
    response = client.delete(FINETUNES)
    assert (response.status_code, error_of(response)["code"]) == (405, 7001)
