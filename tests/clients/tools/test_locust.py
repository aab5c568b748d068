"""locust's OpenAI user: two users, each of whom asks every model once."""

from __future__ import annotations

from tests.clients.assertions import chat_text
from tests.clients.clients import Client
from tests.clients.conftest import ADAPTER, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows
from tests.clients.tools.tools import LOCUST

CLIENTS = (LOCUST,)
ALL_SERVED = [2, 0]
ALL_FAILED = [2, 2]


@shows("chat")
def test_every_user_gets_the_text_of_plain_http(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"] == [[chat_text(plain)] * 2, ALL_SERVED]


@shows("adapter")
def test_an_adapter_is_a_model_by_both_of_its_names(client: Client, shown: Outcomes, plain: Plain) -> None:
    text = chat_text(plain, lora=ADAPTER)
    assert shown["adapter"] == [[[text, text], ALL_SERVED]] * 2
    assert text != chat_text(plain)


@shows("errors")
def test_requests_for_an_unknown_adapter_are_counted_as_failed(client: Client, shown: Outcomes) -> None:
    sentences, counted = shown["errors"]
    assert counted == ALL_FAILED
    assert [text for text in sentences if "404" in text and "Finetune no-such-adapter not found" in text] == sentences
