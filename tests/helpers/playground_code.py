"""The code that the playground shows for a request, and what the server itself says to that request."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from intaglio.settings import DEFAULT_MODEL_ID
from tests.helpers.browser import open_view

ANSWER_DEADLINE_S = 60.0
LINE = 'It\'s "Ä日本" \\n \\ $HOME ${x} `id` %s </script> <!-- {{y}} \N{LINE SEPARATOR}\ttab'
# A small model goes on copying a line that it has seen twice: a character that is lost changes the completion.
PROMPT = f"{LINE}\n{LINE}\n"
GREEDY = {"temperature": "0", "max_tokens": "12"}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL = {
    "name": "get_weather",
    "description": 'Weather in a "city" $x',
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
# What is on the page -> the same as a body. Each says what the code must carry over.
REQUESTS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "raw": ({"mode": "raw", "prompt": PROMPT, **GREEDY}, {"prompt": PROMPT, "raw": True}),
    "prompt, adapter": (
        {"mode": "prompt", "prompt": PROMPT, "lora": "intaglio-json", "top_k": "3", "stop": "\n", **GREEDY},
        {"prompt": PROMPT, "lora": "intaglio-json", "top_k": 3, "stop": "\n"},
    ),
    "messages, scaled adapter": (
        {"mode": "messages", "system": LINE, "prompt": LINE, "lora": "intaglio-json", "scale": "0.5", **GREEDY},
        {
            "messages": [{"role": "system", "content": LINE}, {"role": "user", "content": LINE}],
            "lora": [{"name": "intaglio-json", "scale": 0.5}],
        },
    ),
    "schema": (
        {
            "mode": "prompt",
            "prompt": "Where?",
            "response_format": json.dumps({"type": "json_schema", "json_schema": SCHEMA}),
            **GREEDY,
            "max_tokens": "40",
        },
        {"prompt": "Where?", "response_format": {"type": "json_schema", "json_schema": SCHEMA}, "max_tokens": 40},
    ),
}
streams = pytest.mark.parametrize("stream", ["true", "false"], ids=["streamed", "whole"])
TOOLS_ON_THE_PAGE = {
    "mode": "messages",
    "prompt": "The weather in Paris?",
    "tools": json.dumps([TOOL]),
    "tool_choice": "required",
    **GREEDY,
    "max_tokens": "64",
}
TOOLS_AS_BODY = {
    "messages": [{"role": "user", "content": "The weather in Paris?"}],
    "tools": [TOOL],
    "tool_choice": "required",
    "max_tokens": 64,
}


def shown_code(page: Page, url: str, language: str, **fields: str) -> str:
    """The text of `The same as code`, after a link with these fields was followed."""
    open_view(page, url, "complete", language=language, **fields)
    expect(page.locator("#complete-temperature")).to_have_value(fields.get("temperature", ""))  # the schema has come
    text = page.locator("#code").text_content()
    assert text
    return text


def server_text(url: str, body: dict[str, Any]) -> str:
    """The completion's text over plain HTTP; JSON mode's as JSON without spaces."""
    result = _result(url, body)["response"]
    return result if isinstance(result, str) else compact(json.dumps(result))


def server_calls(url: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = _result(url, body)["tool_calls"]
    return calls


def _result(url: str, body: dict[str, Any]) -> dict[str, Any]:
    address = f"{url}/client/v4/accounts/local/ai/run/{DEFAULT_MODEL_ID}"
    sent = {"temperature": 0, "max_tokens": 12, **body}
    response = httpx.post(address, json=sent, timeout=ANSWER_DEADLINE_S)
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["result"]
    return result


def compact(text: str) -> str:
    """JSON without spaces, because each client writes it in its own way; any other text as it is."""
    try:
        return json.dumps(json.loads(text.replace("'", '"')), separators=(",", ":"))
    except ValueError:
        return text
