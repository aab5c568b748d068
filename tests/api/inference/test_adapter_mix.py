"""Several adapters and scales in one request, on every route that can name an adapter."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from intaglio.model.config import ModelConfig
from intaglio.request import AdapterRef, ScaledAdapter, canonical_mix, mix_identity
from tests.api.conftest import ACCOUNT, MODEL, RUN
from tests.api.finetunes.calls import create, error_of, read, upload_both
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.fakes import FakeLLM

HEADER = "intaglio-adapter-digest"
MIX: list[Any] = [{"name": "one", "scale": 0.7}, "two"]
Ask = Callable[[TestClient, Any], Response]


@pytest.fixture
def digests(client: TestClient, base_config: ModelConfig, tmp_path: Path) -> dict[str, str]:
    """Two finetunes that answer."""
    found = {}
    for seed, name in enumerate(("one", "two"), start=1):
        create(client, name)
        upload_both(client, write_peft_adapter(tmp_path / name, base_config, seed=seed, model_type="gemma"), name)
        found[name] = read(client, name)["digest"]
    return found


def mix_of(digests: dict[str, str], **scales: float) -> tuple[ScaledAdapter, ...]:
    """What the engine should get; folders do not matter."""
    return canonical_mix([ScaledAdapter(AdapterRef(digests[name], ""), scale) for name, scale in scales.items()])


def asked(llm: FakeLLM) -> list[tuple[str, float]]:
    """Digests and scales of the last request that reached the engine."""
    return [(adapter.ref.digest, adapter.scale) for adapter in llm.submitted[-1][2]]


def run(client: TestClient, lora: Any) -> Response:
    return client.post(RUN, json={"prompt": "x", "raw": True, "lora": lora})


WAYS: dict[str, Ask] = {
    "body": run,
    "options": lambda client, lora: client.post(RUN, json={"prompt": "x", "options": {"lora": lora}}),
    "stream": lambda client, lora: client.post(RUN, json={"prompt": "x", "lora": lora, "stream": True}),
    "named model": lambda client, lora: client.post(
        f"{ACCOUNT}/ai/run", json={"model": MODEL, "input": {"prompt": "x", "lora": lora}}
    ),
    "binding inputs": lambda client, lora: binding(client, {"inputs": {"prompt": "x", "lora": lora}}),
    "binding options": lambda client, lora: binding(client, {"inputs": {"prompt": "x"}, "options": {"lora": lora}}),
    "chat": lambda client, lora: openai(
        client, "chat/completions", messages=[{"role": "user", "content": "x"}], lora=lora
    ),
    "completions": lambda client, lora: openai(client, "completions", prompt="x", lora=lora),
    "completions options": lambda client, lora: openai(client, "completions", prompt="x", options={"lora": lora}),
    "completions of several": lambda client, lora: openai(client, "completions", prompt=["x", "y"], n=2, lora=lora),
}


def binding(client: TestClient, body: dict[str, Any]) -> Response:
    return client.post("/run?version=3", json=body, headers={"cf-consn-model-id": MODEL, "intaglio-account": "acc0"})


def openai(client: TestClient, route: str, **body: Any) -> Response:
    return client.post(f"{ACCOUNT}/ai/v1/{route}", json={"model": MODEL, **body})


def test_a_list_with_scales_reaches_the_engine_and_its_identity_comes_back(
    client: TestClient, llm: FakeLLM, digests: dict[str, str]
) -> None:
    wanted = mix_of(digests, one=0.7, two=1)
    for way, ask in WAYS.items():
        llm.submitted.clear()
        response = ask(client, MIX)
        assert response.status_code == 200, (way, response.text)
        assert asked(llm) == [(adapter.ref.digest, adapter.scale) for adapter in wanted], way
        assert response.headers[HEADER] == mix_identity(wanted) not in digests.values(), way


REFUSED: list[tuple[Any, str]] = [
    ([{"name": "one", "scale": 10.1}], "lora[0].scale is 10.1, more than 10"),
    (["one", {"name": "two", "scale": "1"}], 'lora[1].scale is "1"; a number is needed'),
    (["one", "two", "one"], "lora[2] names 'one', which lora[0] names already"),
    (["one", ["two"]], "lora[1] is "),
    (["one"] * 9, "lora has 9 items, more than 8"),
]


def test_an_invalid_list_entry_is_refused_with_its_position(client: TestClient, llm: FakeLLM) -> None:
    for way, ask in WAYS.items():
        for lora, place in REFUSED:
            response = ask(client, lora)
            assert response.status_code == 400, way
            assert place.replace('"', '\\"') in response.text, way
    assert llm.submitted == []


def test_one_adapter_at_full_scale_is_the_same_in_every_form(
    client: TestClient, llm: FakeLLM, digests: dict[str, str]
) -> None:
    forms: list[Any] = ["one", ["one"], [{"name": "one"}], [{"name": "one", "scale": 1.0}]]
    for lora in forms:
        response = run(client, lora)
        assert (asked(llm), response.headers[HEADER]) == ([(digests["one"], 1)], digests["one"])


def test_the_order_of_a_list_changes_nothing(client: TestClient, llm: FakeLLM, digests: dict[str, str]) -> None:
    answers = [run(client, lora) for lora in (MIX, MIX[::-1])]
    assert len({answer.headers[HEADER] for answer in answers}) == 1
    assert llm.submitted[0][2] == llm.submitted[1][2]


def test_an_adapter_with_scale_0_is_left_out_and_must_exist(
    client: TestClient, llm: FakeLLM, digests: dict[str, str]
) -> None:
    nothing = run(client, [{"name": "one", "scale": 0}, {"name": "two", "scale": 0.0}])
    assert (asked(llm), HEADER in nothing.headers) == ([], False)
    rest = run(client, [{"name": "one", "scale": 0}, "two"])
    assert (asked(llm), rest.headers[HEADER]) == ([(digests["two"], 1)], digests["two"])
    unknown = run(client, ["one", {"name": "nobody", "scale": 0}])
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, 3037)
    assert "nobody" in error_of(unknown)["message"]


def test_two_names_of_one_adapter_are_refused(
    client: TestClient, base_config: ModelConfig, digests: dict[str, str], tmp_path: Path
) -> None:
    create(client, "twin")
    upload_both(client, write_peft_adapter(tmp_path / "twin", base_config, seed=1, model_type="gemma"), "twin")
    assert read(client, "twin")["digest"] == digests["one"]
    error = error_of(run(client, ["one", "twin"]))
    assert error["code"] == 5006
    assert "'one' and 'twin'" in error["message"]
    found = read(client, "one")
    assert error_of(run(client, ["one", found["id"]]))["code"] == 5006


def test_the_same_adapters_in_two_places_are_accepted_and_different_ones_refused(
    client: TestClient, llm: FakeLLM, digests: dict[str, str]
) -> None:
    same = client.post(f"{RUN}?lora=one", json={"prompt": "x", "lora": [{"name": "one"}], "options": {"lora": ["one"]}})
    assert (same.status_code, asked(llm)) == (200, [(digests["one"], 1)])
    for elsewhere in ([{"name": "one", "scale": 0.5}], ["one", "two"], ["two"], [["one"]], 3):
        refused = client.post(f"{RUN}?lora=one", json={"prompt": "x", "options": {"lora": elsewhere}})
        assert (refused.status_code, error_of(refused)["code"]) == (400, 5006)
        assert "lora names different adapters" in error_of(refused)["message"]


def test_an_adapter_in_the_models_name_and_in_the_list_have_to_be_the_same(
    client: TestClient, llm: FakeLLM, digests: dict[str, str]
) -> None:
    model = f"{MODEL}:one"
    same = openai(client, "completions", model=model, prompt="x", lora=[{"name": "one", "scale": 1}])
    assert (same.status_code, same.json()["model"], asked(llm)) == (200, model, [(digests["one"], 1)])
    for lora in (MIX, [{"name": "one", "scale": 0.5}], ["two"]):
        refused = openai(client, "completions", model=model, prompt="x", lora=lora)
        assert refused.status_code == 400
        assert "model names the adapter 'one' and lora the adapter" in refused.text


def test_the_log_line_has_the_members_and_their_scales(
    client: TestClient, digests: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "intaglio.api.inference.request_log"):
        mixed, plain, base = run(client, MIX), run(client, "one"), client.post(RUN, json={"prompt": "x"})
    assert base.status_code == 200
    lines = [record.getMessage() for record in caplog.records]
    assert f" adapter={mixed.headers[HEADER]} of=" in lines[0]
    assert f"{digests['one']}*0.7" in lines[0]
    assert f"{digests['two']}*1 " in lines[0].replace(",", " ")
    assert f" adapter={plain.headers[HEADER]} prompt=" in lines[1]
    assert " adapter=- prompt=" in lines[2]


def test_the_published_schema_has_the_list_and_the_query_parameter_one_name(client: TestClient) -> None:
    served = client.get(f"{ACCOUNT}/ai/models/schema", params={"model": MODEL}).json()["result"]["input"]
    for form in served["oneOf"]:
        assert form["properties"]["lora"]["type"] == ["string", "array"]
        assert form["properties"]["lora"]["items"]["properties"]["scale"]["maximum"] == 10
    document = client.get("/openapi.json").json()
    (query,) = [
        one["schema"]
        for one in document["paths"]["/client/v4/accounts/{account}/ai/run/{model}"]["post"]["parameters"]
        if one["name"] == "lora"
    ]
    assert query == {"type": "string"}
