from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import ACCOUNT, MODEL, SECOND_MODEL
from tests.api.finetunes.test_routes import create, upload_both
from tests.api.openai.wire import MODELS, body_of, refusal_of


@pytest.fixture
def adapter(client: TestClient, adapter_folder: Path) -> str:
    create(client, "unfinished")
    create(client, "mine", public=True)
    upload_both(client, adapter_folder, "mine")
    return "mine"


def test_the_bases_and_the_ready_adapters_of_the_account_are_listed(client: TestClient, adapter: str) -> None:
    body = body_of(client.get(MODELS))
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == [MODEL, f"{MODEL}:{adapter}", SECOND_MODEL]
    assert [model["owned_by"] for model in body["data"]] == ["intaglio", "acc0", "google"]
    assert all(model["object"] == "model" and isinstance(model["created"], int) for model in body["data"])
    finetune = client.get(f"{ACCOUNT}/ai/finetunes/{adapter}").json()["result"]
    assert [model["root"] for model in body["data"]] == [MODEL, finetune["id"], SECOND_MODEL]
    assert [model["parent"] for model in body["data"]] == [None, MODEL, None]
    assert {model["max_model_len"] for model in body["data"]} == {1000}
    other = body_of(client.get(MODELS.replace("acc0", "other")))
    assert [model["id"] for model in other["data"]] == [MODEL, SECOND_MODEL]


@pytest.mark.parametrize("spelling", ["{}", "{}/"])
def test_every_listed_model_can_be_retrieved_in_every_spelling(client: TestClient, adapter: str, spelling: str) -> None:
    for listed in body_of(client.get(f"{MODELS}/"))["data"]:
        for name in (listed["id"], listed["id"].replace("/", "%2F").replace("@", "%40").replace(":", "%3A")):
            assert body_of(client.get(f"{MODELS}/{spelling.format(name)}")) == listed


def test_a_public_adapter_of_another_account_is_found_by_its_id_and_its_owner_is_not_told(
    client: TestClient, adapter: str
) -> None:
    finetune = client.get(f"{ACCOUNT}/ai/finetunes/{adapter}").json()["result"]
    elsewhere = MODELS.replace("acc0", "other")
    assert body_of(client.get(f"{elsewhere}/{MODEL}:{finetune['id']}"))["owned_by"] == "public"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("gpt-4o", 400, 5007),
        (f"{MODEL}:nobody", 404, 3037),
        (f"{MODEL}:unfinished", 400, 3039),
        (f"{SECOND_MODEL}:mine", 400, 5006),
        ("@cf/google/gemma-7b-it-lora", 400, 5007),
    ],
)
def test_models_that_cannot_be_served_are_not_retrieved(
    client: TestClient, adapter: str, model: str, status: int, code: int
) -> None:
    assert refusal_of(client.get(f"{MODELS}/{model}"))[:2] == (status, code)
