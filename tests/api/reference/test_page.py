from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import jsonschema_rs
import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.openapi.operation import JSON
from intaglio.api.reference.curl import example_of
from intaglio.api.reference.page import reference_page
from intaglio.api.state import ServerState
from tests.api.conftest import MODEL
from tests.helpers.openapi_conformance import Declared


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    content: dict[str, Any] = client.get("/openapi.json").json()
    return content


@pytest.fixture
def page(client: TestClient) -> str:
    response = client.get("/docs")
    assert response.status_code == 200
    return response.text


def commands_on(page: str) -> list[str]:
    return [unescape(one) for one in re.findall(r"<pre>(.*?)</pre>", page)]


def field_names(schema: Any) -> set[str]:
    """The names of all fields that a schema declares, at any depth."""
    if isinstance(schema, list):
        return set().union(*map(field_names, schema))
    if not isinstance(schema, dict):
        return set()
    inner = set().union(*map(field_names, schema.get("properties", {}).values()), schema.get("properties", {}))
    return inner.union(*(field_names(schema.get(key)) for key in ("items", "anyOf", "oneOf")))


def test_every_operation_path_and_parameter_is_on_the_page(page: str, document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        assert f"<code>{path}</code>" in page
        for operation in methods.values():
            names = {one["name"] for one in operation.get("parameters", ())} - {"gateway"}  # in paths of aliases only
            assert all(f"<code>{name}</code>" in page for name in names)
    summaries = {one["summary"] for methods in document["paths"].values() for one in methods.values()}
    shown = [unescape(one) for one in re.findall(r"<h3>(.*?)</h3>", page.split('id="schemas"', maxsplit=1)[0])]
    assert summaries <= set(shown)
    assert len(shown) == len(set(shown)), "an operation is shown twice"


def test_every_field_of_every_schema_is_on_the_page(page: str, document: dict[str, Any]) -> None:
    for name, schema in document["components"]["schemas"].items():
        section = re.search(rf'id="schema-{name}">(.*?)</section>', page, re.DOTALL)
        assert section is not None, name
        shown = {
            one.split(".")[-1].removesuffix("[]") for one in re.findall(r"<td><code>([^<]*)</code></td>", section[1])
        }
        assert field_names(schema) <= shown, name


def test_bounds_and_defaults_are_said_in_words(page: str) -> None:
    row = re.search(r"<td><code>temperature</code></td><td>number</td><td>(.*?)</td>", page)
    assert row is not None
    assert row[1] == "at least <code>0</code>, at most <code>5</code>, default <code>0.6</code>"
    assert "<td><code>lora[].name</code></td><td>string</td><td>required</td>" in page


def test_every_link_on_the_page_leads_somewhere(page: str) -> None:
    ids = set(re.findall(r'id="([^"]+)"', page))
    targets = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert {one[1:] for one in targets if one.startswith("#")} <= ids
    others = {one for one in targets if not one.startswith("#")}
    assert others == {"gem.svg", "style.css", "reference.css", "./", "openapi.json"}


def test_what_the_page_loads_is_served_and_nothing_else_is_allowed(client: TestClient) -> None:
    response = client.get("/docs")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "<script" not in response.text
    assert 'style="' not in response.text
    for address in ("gem.svg", "style.css", "reference.css"):
        assert client.get(f"/{address}").status_code == 200


def test_a_slash_at_the_end_does_not_change_what_the_page_loads(client: TestClient) -> None:
    assert 'href="../style.css"' in client.get("/docs/").text


def test_the_body_of_every_command_is_one_that_the_schema_takes(document: dict[str, Any]) -> None:
    checked = 0
    for path, methods in document["paths"].items():
        for operation in methods.values():
            content = operation.get("requestBody", {}).get("content", {})
            if JSON in content:
                schema = content[JSON]["schema"]
                body = example_of(document, schema, MODEL)
                jsonschema_rs.validate({**schema, "components": document["components"]}, body)
                assert body != {}, path
                checked += 1
    assert checked > 15


def test_the_commands_are_taken_by_the_server(client: TestClient, page: str) -> None:
    """Each is sent as curl would send it; an id that does not exist is a 404, no field is refused."""
    commands = commands_on(page)
    assert len(commands) > 30
    for command in commands:
        address = re.search(r'"http://testserver(\S+)"', command)
        assert address is not None, command
        body = re.search(r"-d '(.*)'$", command, re.DOTALL)
        headers = dict(re.findall(r'-H "([\w-]+): ([^"]*)"', command))
        method = re.search(r"-X (\w+)", command)
        chosen = method[1] if method else "POST" if body or "-F " in command else "GET"
        data = json.loads(body[1]) if body else None
        if "-F " not in command:
            response = client.request(chosen, address[1], json=data, headers=headers)
            assert response.status_code in (200, 404), (command, response.text)


def test_with_tokens_the_page_is_open_and_its_commands_send_one(state: ServerState) -> None:
    state.settings = state.settings.model_copy(update={"api_tokens": ("secret",)})
    with TestClient(create_app(state)) as client:
        response = client.get("/docs")
    assert response.status_code == 200
    assert "secret" not in response.text
    without = [one for one in commands_on(response.text) if "Bearer $INTAGLIO_TOKEN" not in one]
    assert without == ['curl "http://testserver/health"']


def test_what_a_document_says_is_text_and_not_html(declared: Declared, document: dict[str, Any]) -> None:
    document["info"]["description"] = "<script>alert(1)</script>"
    document["components"]["schemas"]["Usage"]["description"] = '"><img src=x>'
    made = reference_page(document, server='http://x"><i>')
    assert "<script>alert" not in made
    assert "<img src=x>" not in made
    assert "<i>" not in made
