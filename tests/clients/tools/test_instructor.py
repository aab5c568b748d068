"""instructor: a pydantic model as a JSON schema, and as a call of a tool."""

from __future__ import annotations

from tests.clients.assertions import assert_fits_schema
from tests.clients.clients import Client
from tests.clients.conftest import CATEGORIES, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import INSTRUCTOR

CLIENTS = (INSTRUCTOR,)


@shows("structured")
def test_a_model_is_filled_by_a_schema(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"])


@shows("tools")
def test_a_model_is_filled_by_a_call_of_a_tool(client: Client, shown: Outcomes) -> None:
    assert len(shown["tools"]) == 2
    assert [ticket for ticket in shown["tools"] if ticket["category"] not in CATEGORIES] == []


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes) -> None:
    first, second = shown["adapter"]
    assert first == second
    assert first["category"] in CATEGORIES


@shows("stream")
def test_an_object_grows_to_the_whole(client: Client, shown: Outcomes, plain: Plain) -> None:
    parts = shown["stream"]
    assert parts[0] == {"category": None, "urgent": None}
    assert parts[-1]["category"] in CATEGORIES
    assert isinstance(parts[-1]["urgent"], bool)


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    assert "404" in shown["errors"]
    assert "Finetune no-such-adapter not found" in shown["errors"]
