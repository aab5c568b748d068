"""Anthropic's SDK for Python: `anthropic` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import anthropic
from anthropic import Anthropic
from pydantic import BaseModel
from report import report

# The only difference from a program for Anthropic's own API. At the root, http://host:8080, is the account `local`.
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai"
client = Anthropic(base_url=ADDRESS, api_key="any", max_retries=0)

MODEL = os.environ["MODEL"]
MESSAGES: Any = [{"role": "user", "content": os.environ["QUESTION"]}]
ADAPTER = os.environ["ADAPTER"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
FUNCTION = json.loads(os.environ["TOOL"])["function"]
TOOL: Any = {
    "name": FUNCTION["name"],
    "description": FUNCTION["description"],
    "input_schema": FUNCTION["parameters"],
}
# The SDK's methods no longer have a temperature; a body still may.
GREEDY: dict[str, Any] = {"model": MODEL, "max_tokens": 12, "messages": MESSAGES, "extra_body": {"temperature": 0}}


class Ticket(BaseModel):
    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def chat() -> Any:
    return client.messages.create(**GREEDY).model_dump()


def chat_by_environment() -> str:
    """With the address in the environment the program needs no change."""
    os.environ["ANTHROPIC_BASE_URL"] = ADDRESS
    return text_of(Anthropic(api_key="any", max_retries=0).messages.create(**GREEDY))


def count() -> int:
    return client.messages.count_tokens(model=MODEL, messages=MESSAGES).input_tokens


def stop_sequence() -> list[Any]:
    """The text up to its third word."""
    text = text_of(client.messages.create(**GREEDY))
    word = text.split()[2]
    answer = client.messages.create(stop_sequences=["no such text", word], **GREEDY)
    return [text, word, text_of(answer), answer.stop_reason, answer.stop_sequence]


def stream() -> dict[str, Any]:
    """The helper adds the events up to the message that is not streamed."""
    with client.messages.stream(**GREEDY) as events:
        pieces = list(events.text_stream)
        message = events.get_final_message()
    return {"pieces": pieces, "message": message.model_dump()}


def adapter() -> str:
    return text_of(client.messages.create(**GREEDY | {"extra_body": {"temperature": 0, "lora": ADAPTER}}))


def demo_adapter() -> str:
    """An adapter's name is a model."""
    return text_of(client.messages.create(**GREEDY | {"model": DEMO_ADAPTER}))


def models() -> list[str]:
    return [model.id for model in client.models.list()]


def errors() -> list[Any]:
    try:
        client.messages.create(**GREEDY | {"extra_body": {"lora": "no-such-adapter"}})
    except anthropic.NotFoundError as error:
        return [error.status_code, str(error), error.type]
    return []


def structured() -> Any:
    """parse() sends the class as a JSON schema and hands back an object of it."""
    asked = GREEDY | {"max_tokens": 200, "model": DEMO_ADAPTER}
    ticket = client.messages.parse(output_format=Ticket, **asked).parsed_output
    assert ticket is not None
    return ticket.model_dump()


def tools() -> list[Any]:
    asked = GREEDY | {"max_tokens": 64}
    answer = client.messages.create(tools=[TOOL], tool_choice={"type": "any"}, **asked)
    called = [[block.type, block.name, block.input] for block in answer.content if block.type == "tool_use"]
    return [called, answer.stop_reason]


def tool_result() -> str:
    """The conversation goes on with the result of the call."""
    asked = GREEDY | {"max_tokens": 64}
    answer = client.messages.create(tools=[TOOL], tool_choice={"type": "any"}, **asked)
    results: Any = [
        {"type": "tool_result", "tool_use_id": block.id, "content": "ticket 7"}
        for block in answer.content
        if block.type == "tool_use"
    ]
    turns = [*MESSAGES, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    final = client.messages.create(tools=[TOOL], tool_choice={"type": "none"}, **asked | {"messages": turns})
    return final.stop_reason or ""


def tool_stream() -> list[Any]:
    asked = GREEDY | {"max_tokens": 64}
    with client.messages.stream(tools=[TOOL], tool_choice={"type": "any"}, **asked) as events:
        message = events.get_final_message()
    return [[block.type, block.name, block.input] for block in message.content if block.type == "tool_use"]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


report(
    chat, chat_by_environment, count, stop_sequence, stream, adapter, demo_adapter, models, errors, structured, tools,
    tool_result, tool_stream,
)  # fmt: skip
