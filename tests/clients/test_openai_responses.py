"""OpenAI's SDK for Python, on the Responses routes and at the root."""

from __future__ import annotations

from tests.clients.assertions import MESSAGES, assert_fits_schema, chat_text
from tests.clients.clients import OPENAI_PYTHON, Client
from tests.clients.conftest import CATEGORIES, MODEL, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (OPENAI_PYTHON,)


@shows("chat")
def test_the_root_is_an_address_too(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["at_root"] == chat_text(plain)


@shows("chat")
def test_a_response_has_the_text_and_the_usage(client: Client, shown: Outcomes, plain: Plain) -> None:
    wanted = plain(messages=MESSAGES)
    text, response = shown["response"]
    assert text == wanted["response"]
    assert (response["status"], response["model"]) == ("incomplete", MODEL)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["usage"]["total_tokens"] == wanted["usage"]["total_tokens"]


@shows("stream")
def test_a_streamed_response_adds_up_to_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    kinds, pieces, text = shown["response_stream"]
    assert "".join(pieces) == text == chat_text(plain)
    assert (kinds[0], kinds[-1]) == ("response.created", "response.incomplete")
    assert len(pieces) > 4


@shows("chat")
def test_a_response_is_read_continued_and_deleted(client: Client, shown: Outcomes) -> None:
    first, read, second, (before, after), gone = shown["response_state"]
    assert first == read
    assert second
    assert after > before
    assert gone == 404


@shows("structured")
def test_parse_of_a_response_gets_an_object_of_the_type(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["response_structured"])


@shows("tools")
def test_a_response_calls_a_tool_and_reads_its_result(client: Client, shown: Outcomes) -> None:
    calls, streamed, status = shown["response_tools"]
    ((name, given),) = calls
    assert name == "open_ticket"
    assert given["team"] in CATEGORIES
    assert streamed == calls
    assert status in ("completed", "incomplete")
