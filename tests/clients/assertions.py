"""Assertions on responses that the tests of several clients share."""

from __future__ import annotations

from typing import Any

from tests.clients.conftest import ADAPTER, DEMO_ADAPTER, PROMPT, QUESTION, SCHEMA, Plain

MESSAGES = [{"role": "user", "content": QUESTION}]


def prompt_text(plain: Plain, **body: Any) -> str:
    """What the bare prompt gets over plain HTTP."""
    return str(plain(prompt=PROMPT, raw=True, **body)["response"])


def chat_text(plain: Plain, **body: Any) -> str:
    """What the question gets over plain HTTP, as one user turn."""
    return str(plain(messages=MESSAGES, **body)["response"])


def assert_adapters_speak(plain: Plain, uploaded: str, demo: str) -> None:
    """`uploaded` answered the prompt with the uploaded adapter, `demo` the question with one that comes with us."""
    assert uploaded == prompt_text(plain, lora=ADAPTER) != prompt_text(plain)
    assert demo == chat_text(plain, lora=DEMO_ADAPTER) != chat_text(plain)


def assert_chat_adapters_speak(plain: Plain, uploaded: str, demo: str) -> None:
    """The same for a client that only chats."""
    assert uploaded == chat_text(plain, lora=ADAPTER) != chat_text(plain)
    assert demo == chat_text(plain, lora=DEMO_ADAPTER) != chat_text(plain)


def assert_fits_schema(plain: Plain, answer: Any) -> None:
    """The answer is what plain HTTP gets for the same schema, with the demo adapter; both fit the schema."""
    assert isinstance(answer, dict)
    assert answer["category"] in SCHEMA["properties"]["category"]["enum"]  # type: ignore[index]
    assert isinstance(answer["urgent"], bool)
    form = {"type": "json_schema", "json_schema": SCHEMA}
    assert answer == plain(messages=MESSAGES, response_format=form, lora=DEMO_ADAPTER, max_tokens=200)["response"]
