from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio.api.inference.schema import RunSchema
from intaglio.api.state import ServerState
from tests.api.conftest import ACCOUNT, MODEL, SECOND_MODEL
from tests.helpers.fakes import FakeLLM

GEMMA_7B = "@cf/google/gemma-7b-it-lora"
GEMMA_3_12B = "@cf/google/gemma-3-12b-it"
HF_GEMMA_7B = "@hf/google/gemma-7b-it"
ALL = [MODEL, SECOND_MODEL, GEMMA_7B, GEMMA_3_12B, HF_GEMMA_7B]


def search(client: TestClient, **query: Any) -> dict[str, Any]:
    response = client.get(f"{ACCOUNT}/ai/models/search", params=query)
    assert response.status_code == 200
    content: dict[str, Any] = response.json()
    return content


def names(client: TestClient, **query: Any) -> list[str]:
    return [entry["name"] for entry in search(client, **query)["result"]]


def test_the_7b_is_listed_with_its_real_id_whether_it_has_weights_or_not(client: TestClient) -> None:
    entries = {entry["name"]: entry for entry in search(client)["result"]}
    assert entries[GEMMA_7B]["id"] == "337170b7-bd2f-4631-9a57-688b579cf6d3"
    assert entries[GEMMA_7B]["source"] == 1
    assert entries[GEMMA_7B]["task"]["id"] == "c329a1f9-323d-4e91-b2aa-582dd4188d34"
    assert {"property_id": "context_window", "value": "3500"} in entries[GEMMA_7B]["properties"]
    assert "--model '@cf/google/gemma-7b-it-lora=" in entries[GEMMA_7B]["description"]


@pytest.mark.parametrize(
    ("name", "id_", "window", "is_beta"),
    [
        (GEMMA_7B, "337170b7-bd2f-4631-9a57-688b579cf6d3", "3500", True),
        (GEMMA_3_12B, "053d5ac0-861b-4d3b-8501-e58d00417ef8", "80000", False),
        (HF_GEMMA_7B, "0f002249-7d86-4698-aabf-8529ed86cefb", "8192", True),
    ],
)
def test_a_model_without_weights_has_the_facts_of_the_hosted_listing(
    client: TestClient, name: str, id_: str, window: str, is_beta: bool
) -> None:
    (entry,) = [one for one in search(client)["result"] if one["name"] == name]
    properties = {one["property_id"]: one["value"] for one in entry["properties"]}
    assert entry["id"] == id_
    assert properties.pop("beta", None) == ("true" if is_beta else None)
    assert properties == {"lora": "true", "context_window": window, "without_weights": "true"}


def test_a_served_model_of_the_catalogue_has_its_id_and_the_window_of_its_engine(client: TestClient) -> None:
    (entry,) = search(client, search="gemma-2b")["result"]
    properties = {one["property_id"]: one["value"] for one in entry["properties"]}
    assert entry["id"] == "e8e8abe4-a372-4c13-815f-4688ba655c8e"
    assert properties == {"beta": "true", "lora": "true", "context_window": "1000"}


def test_a_pretrained_base_and_what_it_answers_for_say_so(client: TestClient, state: ServerState, llm: FakeLLM) -> None:
    state.stand_ins = {GEMMA_7B: MODEL}
    assert not pretrained_models(client)
    llm.is_pretrained = True
    assert pretrained_models(client) == {MODEL, GEMMA_7B}


def pretrained_models(client: TestClient) -> set[str]:
    listed = search(client)["result"]
    return {one["name"] for one in listed if {"property_id": "pretrained", "value": "true"} in one["properties"]}


def test_entries_have_string_properties_and_the_engines_window(client: TestClient) -> None:
    for entry in search(client)["result"]:
        assert {"id", "source", "name", "description", "task", "tags", "properties"} <= entry.keys()
        assert all(isinstance(item["value"], str) for item in entry["properties"])
        assert {"property_id": "lora", "value": "true"} in entry["properties"]
    (mine,) = search(client, search="fake")["result"]
    assert {"property_id": "context_window", "value": "1000"} in mine["properties"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ALL),
        ({"search": "GEMMA-2B"}, [SECOND_MODEL]),
        ({"search": "nothing like it"}, []),
        ({"task": "Text Generation"}, ALL),
        ({"task": "Translation"}, []),
        ({"author": "google"}, ALL[1:]),
        ({"author": "intaglio"}, [MODEL]),
        ({"source": 1}, ALL[1:4]),
        ({"source": 2}, [HF_GEMMA_7B]),
        ({"source": 3}, [MODEL]),
        ({"hide_experimental": "true"}, [MODEL, GEMMA_3_12B]),
        ({"hide_experimental": "false", "include_deprecated": "true"}, ALL),
        ({"page": 1, "per_page": 2}, ALL[:2]),
        ({"page": 3, "per_page": 2}, ALL[4:]),
        ({"page": 4, "per_page": 2}, []),
        ({"page": 10**9}, []),
    ],
)
def test_models_are_filtered_and_paged(client: TestClient, query: dict[str, Any], found: list[str]) -> None:
    assert names(client, **query) == found


def test_result_info_counts_the_page_and_the_total(client: TestClient) -> None:
    info = search(client, page=3, per_page=2)["result_info"]
    assert info == {"page": 3, "per_page": 2, "count": 1, "total_count": 5}


@pytest.mark.parametrize(
    "query",
    [
        {"page": 0}, {"page": "x"}, {"per_page": 1001}, {"page": "9" * 5000}, {"page": "²"}, {"page": ""},
        {"per_page": ""},
    ],
    ids=lambda query: str(query)[:30],
)  # fmt: skip
def test_bad_pages_are_refused(client: TestClient, query: dict[str, Any]) -> None:
    response = client.get(f"{ACCOUNT}/ai/models/search", params=query)
    assert (response.status_code, response.json()["errors"][0]["code"]) == (400, 5006)
    assert next(iter(query)) in response.json()["errors"][0]["message"]


@pytest.mark.parametrize("model", ALL)
def test_every_model_takes_a_prompt_or_messages_with_the_defaults_of_the_hosted_one(
    client: TestClient, model: str
) -> None:
    result = client.get(f"{ACCOUNT}/ai/models/schema", params={"model": model}).json()["result"]
    prompt, messages = (form["properties"] for form in result["input"]["oneOf"])
    assert "prompt" in prompt and "messages" in messages
    for form in (prompt, messages):
        defaults = {name: form[name].get("default") for name in ("max_tokens", "temperature", "raw", "stream")}
        assert defaults == {"max_tokens": 256, "temperature": 0.6, "raw": False, "stream": False}


@pytest.mark.parametrize("model", ALL)
def test_the_schema_is_the_one_that_checks(client: TestClient, model: str) -> None:
    result = client.get(f"{ACCOUNT}/ai/models/schema", params={"model": model}).json()["result"]
    assert result == {"input": RunSchema().input, "output": RunSchema().output}


def test_the_schema_of_an_unknown_model_is_5007_and_of_none_5006(client: TestClient) -> None:
    for query, code in (({"model": "@cf/no/such"}, 5007), ({}, 5006)):
        response = client.get(f"{ACCOUNT}/ai/models/schema", params=query)
        assert (response.status_code, response.json()["errors"][0]["code"]) == (400, code)


def test_tasks_and_authors_are_listed(client: TestClient) -> None:
    (task,) = client.get(f"{ACCOUNT}/ai/tasks/search").json()["result"]
    assert task["name"] == "Text Generation"
    authors = client.get(f"{ACCOUNT}/ai/authors/search").json()["result"]
    assert [author["name"] for author in authors] == ["google", "intaglio"]


def test_a_bad_flag_is_refused_also_where_nothing_is_found(client: TestClient) -> None:
    response = client.get(f"{ACCOUNT}/ai/models/search", params={"search": "nothing", "hide_experimental": "2"})
    assert response.status_code == 400
    assert "'hide_experimental' is " in response.text
