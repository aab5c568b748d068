from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.state import ServerState
from intaglio.finetunes import FinetuneStore
from intaglio.finetunes.demos import read_demo_adapters
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.api.conftest import MODEL
from tests.api.finetunes.calls import CONFIG, FINETUNES, WEIGHTS, create, error_of, upload, upload_both

OTHERS = FINETUNES.replace("acc0", "other")


def asset(name: str, finetune: str = "mine", finetunes: str = FINETUNES) -> str:
    return f"{finetunes}/{finetune}/finetune-assets/{name}"


@pytest.mark.parametrize("by", ["name", "id"])
@pytest.mark.parametrize(("name", "kind"), [(CONFIG, "application/json"), (WEIGHTS, "application/octet-stream")])
def test_what_was_uploaded_comes_back(client: TestClient, adapter_folder: Path, by: str, name: str, kind: str) -> None:
    key = create(client).json()["result"][by]
    upload_both(client, adapter_folder)
    content = (adapter_folder / name).read_bytes()
    response = client.get(asset(name, key))
    assert response.status_code == 200
    assert response.content == content
    assert response.headers["content-length"] == str(len(content))
    assert response.headers["content-type"] == kind
    assert response.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert response.headers["content-disposition"] == f'attachment; filename="{name}"'


def test_head_has_the_headers_and_no_body(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    upload_both(client, adapter_folder)
    whole, head = client.get(asset(WEIGHTS)), client.head(asset(WEIGHTS))
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers == whole.headers
    assert client.head(asset("x")).status_code == 400


@pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', '"other", "{}"', "*"])
def test_a_download_with_a_matching_etag_is_304(client: TestClient, adapter_folder: Path, form: str) -> None:
    create(client)
    upload_both(client, adapter_folder)
    sha256 = hashlib.sha256((adapter_folder / CONFIG).read_bytes()).hexdigest()
    response = client.get(asset(CONFIG), headers={"if-none-match": form.format(sha256)})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == f'"{sha256}"'
    assert client.get(asset(WEIGHTS), headers={"if-none-match": f'"{sha256}"'}).status_code == 200


@pytest.mark.parametrize("name", ["model.safetensors", "finetunes.db", "..%2f..%2ffinetunes.db", "%2e%2e", "a%00b"])
def test_an_unknown_file_name_is_refused(client: TestClient, adapter_folder: Path, name: str) -> None:
    create(client)
    upload_both(client, adapter_folder)
    response = client.get(asset(name))
    assert (response.status_code, error_of(response)["code"]) in [(400, 5006), (404, 7000)]
    assert b"SQLite" not in response.content


def test_a_file_that_was_not_uploaded_is_3039_and_one_that_was_is_there(
    client: TestClient, adapter_folder: Path
) -> None:
    create(client)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    response = client.get(asset(WEIGHTS))
    assert (response.status_code, error_of(response)["code"]) == (400, 3039)
    assert WEIGHTS in error_of(response)["message"]
    assert client.get(asset(CONFIG)).content == (adapter_folder / CONFIG).read_bytes()


def test_other_accounts_download_public_ready_finetunes_by_id(client: TestClient, adapter_folder: Path) -> None:
    shared = create(client, "shared", public=True).json()["result"]["id"]
    upload(client, "shared", CONFIG, (adapter_folder / CONFIG).read_bytes())
    early = client.get(asset(CONFIG, shared, OTHERS))
    assert (early.status_code, error_of(early)["code"]) == (400, 3039)
    upload(client, "shared", WEIGHTS, (adapter_folder / WEIGHTS).read_bytes())
    assert client.get(asset(CONFIG, shared, OTHERS)).content == (adapter_folder / CONFIG).read_bytes()
    private = create(client, "private").json()["result"]["id"]
    upload_both(client, adapter_folder, "private")
    for finetune in ("shared", "private", private):
        response = client.get(asset(CONFIG, finetune, OTHERS))
        assert (response.status_code, error_of(response)["code"]) == (404, 3037)


def test_demo_adapters_can_be_read_and_not_changed(
    state: ServerState, base_config: ModelConfig, adapter_folder: Path, tmp_path: Path
) -> None:
    demo = tmp_path / "demos" / "demo"
    shutil.copytree(adapter_folder, demo)
    suggested = {"form": "prompt", "max_tokens": 9, "temperature": 0.0}
    card = {"name": "intaglio-demo", "description": "shows it", "example_prompt": "Try me", "suggested": suggested}
    (demo / "card.json").write_text(json.dumps(card))
    demos = read_demo_adapters(demo.parent, MODEL, base_config, AdapterLimits())
    state.finetunes.close()
    state.finetunes = FinetuneStore(tmp_path / "other", AdapterLimits(), 3, demos)
    with TestClient(create_app(state)) as client:
        content = client.get(asset(CONFIG, "intaglio-demo")).content
        assert content == (adapter_folder / CONFIG).read_bytes()
        refusals = [
            client.delete(f"{FINETUNES}/intaglio-demo"),
            client.delete(f"{FINETUNES}/{demos[0].id}"),
            upload(client, "intaglio-demo", CONFIG, content),
        ]
        for response in refusals:
            assert response.status_code == 400
            assert "comes with the server" in error_of(response)["message"]
        read_one = client.get(f"{FINETUNES}/intaglio-demo").json()["result"]
        assert (read_one["example_prompt"], read_one["suggested"]) == ("Try me", suggested)
        assert (read_one["state"], read_one["version"], len(read_one["files"])) == ("ready", 1, 2)
