"""Assertions on responses that the tests of several clients share."""

from __future__ import annotations

from typing import Any

from tests.clients.conftest import ADAPTER, DEMO_ADAPTER, PROMPT, QUESTION, SCHEMA, Plain

MESSAGES = [{"role": "user", "content": QUESTION}]


def prompt_text(plain: Plain, **body: Any) -> str:
    """The completion of the raw prompt over plain HTTP."""
    return str(plain(prompt=PROMPT, raw=True, **body)["response"])


def chat_text(plain: Plain, **body: Any) -> str:
    """The completion of the question, as one user turn, over plain HTTP."""
    return str(plain(messages=MESSAGES, **body)["response"])


def assert_adapters_speak(plain: Plain, uploaded: str, demo: str) -> None:
    """`uploaded` is the prompt's completion with the uploaded adapter, `demo` the question's with a demo adapter."""
    assert uploaded == prompt_text(plain, lora=ADAPTER) != prompt_text(plain)
    assert demo == chat_text(plain, lora=DEMO_ADAPTER) != chat_text(plain)


def assert_chat_adapters_speak(plain: Plain, uploaded: str, demo: str) -> None:
    """Both are completions of the question: for clients that only chat."""
    assert uploaded == chat_text(plain, lora=ADAPTER) != chat_text(plain)
    assert demo == chat_text(plain, lora=DEMO_ADAPTER) != chat_text(plain)


def assert_fits_schema(plain: Plain, answer: Any) -> None:
    """The response fits the schema and is that of plain HTTP for the same schema with the demo adapter."""
    assert isinstance(answer, dict)
    assert answer["category"] in SCHEMA["properties"]["category"]["enum"]  # type: ignore[index]
    assert isinstance(answer["urgent"], bool)
    form = {"type": "json_schema", "json_schema": SCHEMA}
    assert answer == plain(messages=MESSAGES, response_format=form, lora=DEMO_ADAPTER, max_tokens=200)["response"]
