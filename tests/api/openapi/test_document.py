from __future__ import annotations

import re
from typing import Any

import jsonschema_rs
import pytest
from fastapi.testclient import TestClient

from intaglio.api.aliases import ALIASES, aliased_path
from intaglio.api.app import create_app
from intaglio.api.http.errors import WIRE_ERRORS
from intaglio.api.inference.schema import RunSchema
from intaglio.api.openai.schema import CHAT_SCHEMA
from intaglio.api.openapi.document import declared_operations
from intaglio.api.state import ServerState
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, MODEL, fake_state
from tests.helpers.openapi_conformance import Declared, ReceivedResponse


@pytest.fixture(scope="module")
def document(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    state = fake_state(Settings(data_dir=tmp_path_factory.mktemp("data")), base_config)
    with TestClient(create_app(state)) as client:
        content: dict[str, Any] = client.get("/openapi.json").json()
        return content


def operations_of(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in document["paths"].items() for method, one in methods.items()]


def references_in(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(references_in, part))
    if not isinstance(part, dict):
        return set()
    here = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
    return here.union(*map(references_in, part.values()))


def test_every_route_is_declared_and_every_declaration_has_a_route(document: dict[str, Any]) -> None:
    named = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert len(named) == len(set(named))
    declared = declared_operations(RunSchema(), MODEL).keys()
    aliases = {f"{name}_{alias.name}" for name in declared for alias in ALIASES}
    assert declared <= set(named) <= declared | aliases


def test_an_alias_is_declared_as_the_route_that_it_stands_for(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert "/v1/chat/completions" in paths
    for alias in ALIASES:
        stood_for = {alias.documented(path): path for path in paths if alias.documented(path) in paths}
        assert stood_for, alias.name
        for path, route in stood_for.items():
            assert aliased_path(re.sub(r"{account}", "local", path or "")) == re.sub(r"{account}", "local", route)
            for method, operation in paths[path].items():
                assert operation["responses"] == paths[route][method]["responses"]
                assert operation.get("requestBody") == paths[route][method].get("requestBody")


def test_every_operation_says_what_it_does_and_can_fail(document: dict[str, Any]) -> None:
    for path, method, operation in operations_of(document):
        assert all(operation[name] for name in ("summary", "description", "tags")), (method, path)
        assert "500" in operation["responses"], (method, path)
        statuses = {int(status) for status in operation["responses"]} - {200, 303, 304, 503}
        assert statuses <= {row.status for row in WIRE_ERRORS.values()}, (method, path)


def test_every_path_parameter_is_declared(document: dict[str, Any]) -> None:
    for path, method, operation in operations_of(document):
        declared = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path)), (method, path)


def test_every_reference_leads_to_a_schema_and_every_schema_is_used(document: dict[str, Any]) -> None:
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references_in(document) == schemas


def test_every_schema_is_valid_json_schema(document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert schema.get("type") == "object" or "anyOf" in schema, name


def test_bodies_are_declared_by_the_schemas_that_check(client: TestClient, document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    served = client.get(f"{ACCOUNT}/ai/models/schema", params={"model": MODEL}).json()["result"]
    forms = zip(served["input"]["oneOf"], schemas["RunInput"]["oneOf"], strict=True)
    assert all(one["properties"]["temperature"] == two["properties"]["temperature"] for one, two in forms)
    assert schemas["RunResult"] == served["output"]["oneOf"][0]
    assert schemas["ChatInput"]["properties"]["messages"] == CHAT_SCHEMA["properties"]["messages"]


def test_a_429_is_declared_with_retry_after(document: dict[str, Any]) -> None:
    rows = [one["responses"]["429"] for _, _, one in operations_of(document) if "429" in one["responses"]]
    assert len(rows) >= 6
    assert all(row["headers"]["retry-after"]["required"] for row in rows)


def test_the_document_needs_no_token_and_declares_that_other_routes_do(
    state: ServerState, document: dict[str, Any]
) -> None:
    assert {} in document["security"]
    state.settings = state.settings.model_copy(update={"api_tokens": ("secret",)})
    with TestClient(create_app(state)) as client:
        guarded = client.get("/openapi.json").json()
        open_to_all = {path for path, _, operation in operations_of(guarded) if operation.get("security") == []}
        assert {} not in guarded["security"]
        assert open_to_all == {"/health", f"{ACCOUNT.replace('acc0', '{account}')}/ai/health"}
        for path, method, _ in operations_of(guarded):
            response = client.request(method, re.sub(r"\{\w+\}", "x", path))
            assert (response.status_code == 401) == (path not in open_to_all), (method, path)


@pytest.mark.parametrize(
    ("status", "headers", "body", "gap"),
    [
        (200, {}, b'{"result":[],"success":true,"errors":[],"messages":[],"more":1}', "'more' was unexpected"),
        (200, {}, b'{"result":[{"name":5}],"success":true,"errors":[],"messages":[]}', "not of type"),
        (200, {"content-type": "text/html"}, b"<html>", "text/html is not among"),
        (418, {}, b"{}", "only"),
        (404, {}, b'{"result":{},"success":false,"errors":[{"code":3037,"message":"x"}],"messages":[]}', "3037"),
    ],
)
def test_the_checks_notice_an_undeclared_response(
    declared: Declared, status: int, headers: dict[str, str], body: bytes, gap: str
) -> None:
    answer = ReceivedResponse(status, {"content-type": "application/json", **headers}, body)
    with pytest.raises(AssertionError, match=re.escape(gap)):
        declared.check("GET", f"{ACCOUNT}/ai/authors/search", answer)
