"""aider: questions and an edit of a file, through litellm's client for OpenAI's routes."""

from __future__ import annotations

from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, QUESTION, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import AIDER

CLIENTS = (AIDER,)


def answer_to(plain: Plain, messages: list[dict[str, str]], **body: str) -> str:
    """The completion over plain HTTP, without the white space around it, which aider drops."""
    return str(plain(messages=messages, **body)["response"]).strip()


@shows("chat")
def test_the_answer_is_that_of_plain_http_to_the_same_messages(client: Client, shown: Outcomes, plain: Plain) -> None:
    sent, answer = shown["chat"]
    assert QUESTION in sent[-1]["content"]
    assert answer == answer_to(plain, sent)


@shows("stream")
def test_a_stream_adds_up_to_the_answer(client: Client, shown: Outcomes) -> None:
    assert shown["stream"] == shown["chat"]


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    for sent, answer in shown["adapter"]:
        assert answer == answer_to(plain, sent, lora=ADAPTER) != answer_to(plain, sent)


@shows("structured")
def test_an_edit_whose_form_is_enforced_changes_the_file(client: Client, shown: Outcomes) -> None:
    before, answer, after = shown["structured"]
    assert before != after
    assert answer == f"answer.py\n```\n{after}```"


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    """litellm makes its BadRequestError of every `invalid_request_error`, one with status 404 too."""
    assert "litellm.BadRequestError" in shown["errors"]
    assert "Finetune no-such-adapter not found" in shown["errors"]
