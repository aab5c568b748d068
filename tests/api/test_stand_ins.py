"""A served model that answers under an id of the catalogue which has no weights here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.api.catalogue import HOSTED
from intaglio.api.stand_ins import read_stand_ins
from intaglio.api.state import ServerState
from intaglio.errors import SettingsError
from intaglio.model.config import config_from_hf
from tests.api.conftest import ACCOUNT, MODEL, SECOND_MODEL
from tests.api.finetunes.calls import CONFIG, WEIGHTS, create, error_of, read, upload, upload_both
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.fakes import FakeLLM

GEMMA_7B = "@cf/google/gemma-7b-it-lora"
GEMMA_12B = "@cf/google/gemma-3-12b-it"
RUN_7B = f"{ACCOUNT}/ai/run/{GEMMA_7B}"
V1 = f"{ACCOUNT}/ai/v1"
HEADER = "intaglio-answered-by"
BODY = {"prompt": "one two", "raw": True}
CHAT = {"model": GEMMA_7B, "messages": [{"role": "user", "content": "one"}]}


@pytest.fixture
def state(state: ServerState) -> ServerState:
    state.stand_ins = {GEMMA_7B: MODEL}
    return state


# -- the setting


def test_the_only_served_model_stands_in_and_of_several_one_is_named() -> None:
    assert read_stand_ins([GEMMA_7B, GEMMA_12B], ["@a/b"]) == {GEMMA_7B: "@a/b", GEMMA_12B: "@a/b"}
    assert read_stand_ins([f"{GEMMA_7B}=@c/d"], ["@a/b", "@c/d"]) == {GEMMA_7B: "@c/d"}
    assert read_stand_ins([], ["@a/b"]) == {}


@pytest.mark.parametrize(
    ("entries", "served", "sentence"),
    [
        ([GEMMA_7B], ["@a/b", "@c/d"], f"does not say which .* name one: {GEMMA_7B}=@a/b, {GEMMA_7B}=@c/d"),
        ([f"{GEMMA_7B}=@x/y"], ["@a/b"], "'@x/y' is not served here; served: @a/b"),
        ([GEMMA_7B], [GEMMA_7B], "this server has weights for it"),
        (["@cf/google/gemma-7b-it-loar"], ["@a/b"], f"not a model of the catalogue; did you mean {GEMMA_7B}?"),
        (["llama"], ["@a/b"], f"not a model of the catalogue; known: {GEMMA_7B}, "),
        ([""], ["@a/b"], "'' is not a model of the catalogue"),
        ([GEMMA_7B, f"{GEMMA_7B}=@a/b"], ["@a/b"], "given twice"),
    ],
)
def test_a_stand_in_that_is_not_possible_is_refused_with_what_is_needed(
    entries: list[str], served: list[str], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=f"^stand_in .*{sentence}"):
        read_stand_ins(entries, served)


# -- every response says which model answered


def test_a_response_names_the_model_that_answered(
    client: TestClient, llm: FakeLLM, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for stream in (False, True):
            response = client.post(RUN_7B, json={**BODY, "stream": stream})
            assert (response.status_code, response.headers[HEADER]) == (200, MODEL)
    assert f"model={GEMMA_7B} answered_by={MODEL} " in caplog.text
    assert len(llm.submitted) == 2
    named = client.post(f"{ACCOUNT}/ai/run", json={"model": GEMMA_7B, "input": BODY})
    assert (named.status_code, named.headers[HEADER]) == (200, MODEL)


def test_a_model_that_has_weights_answers_without_the_header(client: TestClient) -> None:
    for model in (MODEL, SECOND_MODEL):
        assert HEADER not in client.post(f"{ACCOUNT}/ai/run/{model}", json=BODY).headers


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"prompt": "x", "temperature": 9}, 400),
        ({"prompt": "x", "lora": "none-such"}, 404),
        ({"prompt": "x", "max_tokens": 5000}, 413),
        ({"prompt": "<fail>", "raw": True}, 500),
        ({"prompt": "<fail>", "raw": True, "stream": True}, 500),
    ],
)
def test_an_error_names_the_model_that_would_answer(client: TestClient, body: dict[str, Any], status: int) -> None:
    response = client.post(RUN_7B, json=body)
    assert (response.status_code, response.headers[HEADER]) == (status, MODEL)
    empty = client.post(RUN_7B)
    assert (empty.status_code, empty.headers[HEADER]) == (400, MODEL)


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_routes_repeat_the_requested_id_and_have_the_header(client: TestClient, stream: bool) -> None:
    for path, body in (("chat/completions", CHAT), ("completions", {"model": GEMMA_7B, "prompt": "one"})):
        response = client.post(f"{V1}/{path}", json={**body, "stream": stream})
        assert (response.status_code, response.headers[HEADER]) == (200, MODEL)
        assert f'"model":"{GEMMA_7B}"' in response.text.replace(" ", "")
    refused = client.post(f"{V1}/chat/completions", json={**CHAT, "temperature": "hot", "stream": stream})
    assert (refused.status_code, refused.headers[HEADER]) == (400, MODEL)


def test_a_workers_binding_has_the_header(client: TestClient) -> None:
    response = client.post("/run?version=3", json={"inputs": BODY}, headers={"cf-consn-model-id": GEMMA_7B})
    assert (response.status_code, response.headers[HEADER]) == (200, MODEL)
    refused = client.post("/run?version=3", json={}, headers={"cf-consn-model-id": GEMMA_7B})
    assert (refused.status_code, refused.headers[HEADER]) == (400, MODEL)


def test_an_id_that_nothing_stands_in_for_stays_refused(client: TestClient) -> None:
    response = client.post(f"{ACCOUNT}/ai/run/{GEMMA_12B}", json=BODY)
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, 5007)
    assert f"--model '{GEMMA_12B}=hf:google/gemma-3-12b-it'" in error["message"]
    assert f"--stand-in '{GEMMA_12B}'" in error["message"]
    assert HEADER not in response.headers


# -- finetunes


def test_an_adapter_for_the_id_is_compared_with_the_model_that_answers_and_runs(
    client: TestClient, adapter_folder: Path, llm: FakeLLM
) -> None:
    made = create(client, model=GEMMA_7B).json()["result"]
    assert made["model"] == GEMMA_7B
    upload_both(client, adapter_folder)
    digest = read(client)["digest"]
    response = client.post(RUN_7B, json={**BODY, "lora": "mine"})
    assert response.json()["result"]["response"].startswith("[")
    assert response.headers["intaglio-adapter-digest"] == digest
    via_model = client.post(f"{V1}/chat/completions", json={**CHAT, "model": f"{GEMMA_7B}:mine"})
    assert via_model.json()["choices"][0]["message"]["content"].startswith("[")
    assert via_model.headers[HEADER] == MODEL


def test_an_adapter_that_does_not_fit_the_model_that_answers_is_refused_with_both_names(
    client: TestClient, tmp_path: Path
) -> None:
    other = config_from_hf(tiny_config("gemma", hidden_size=96))
    folder = write_peft_adapter(tmp_path / "other", other, model_type="gemma")
    create(client, model=GEMMA_7B)
    upload(client, "mine", CONFIG, (folder / CONFIG).read_bytes())
    refused = upload(client, "mine", WEIGHTS, (folder / WEIGHTS).read_bytes())
    assert refused.status_code == 400
    assert f"(compared with {MODEL}, which stands in for {GEMMA_7B})" in error_of(refused)["message"]


def test_adapters_of_the_model_that_answers_can_be_tried_under_the_id_but_not_the_other_way_round(
    client: TestClient, adapter_folder: Path
) -> None:
    create(client, "of-the-base")
    create(client, "of-the-7b", model=GEMMA_7B)
    for name in ("of-the-base", "of-the-7b"):
        upload_both(client, adapter_folder, name)
    assert client.post(RUN_7B, json={**BODY, "lora": "of-the-base"}).status_code == 200
    other_way = client.post(f"{ACCOUNT}/ai/run/{MODEL}", json={**BODY, "lora": "of-the-7b"})
    assert other_way.status_code == 400
    assert f"was made for {GEMMA_7B} and cannot be used with {MODEL}" in error_of(other_way)["message"]


def test_openais_list_has_the_id_with_its_adapters(client: TestClient, adapter_folder: Path) -> None:
    create(client, model=GEMMA_7B)
    upload_both(client, adapter_folder)
    create(client, "of-the-base")
    upload_both(client, adapter_folder, "of-the-base")
    listed = [one["id"] for one in client.get(f"{V1}/models").json()["data"]]
    expected = {GEMMA_7B, f"{GEMMA_7B}:mine", f"{GEMMA_7B}:of-the-base", f"{MODEL}:of-the-base"}
    assert expected <= {*listed}
    assert f"{MODEL}:mine" not in listed
    for one in listed:
        assert client.get(f"{V1}/models/{one}").status_code == 200


# -- the listing


def test_the_listing_marks_what_has_no_weights_and_what_stands_in(client: TestClient) -> None:
    entries = {one["name"]: one for one in client.get(f"{ACCOUNT}/ai/models/search").json()["result"]}
    assert entries.keys() >= HOSTED.keys()
    properties = {
        name: {one["property_id"]: one["value"] for one in entry["properties"]} for name, entry in entries.items()
    }
    assert properties[MODEL].keys().isdisjoint({"without_weights", "stand_in"})
    assert properties[GEMMA_12B]["without_weights"] == "true"
    assert "stand_in" not in properties[GEMMA_12B]
    assert (properties[GEMMA_7B]["without_weights"], properties[GEMMA_7B]["stand_in"]) == ("true", MODEL)
    assert properties[GEMMA_7B]["context_window"] == "1000", "that of the model which answers"
    assert f"{MODEL} answers in its place" in entries[GEMMA_7B]["description"]
