"""OpenAI's Agents SDK: `openai-agents` on PyPI"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any, Literal

from agents import (
    Agent,
    Model,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI, NotFoundError
from pydantic import BaseModel
from report import report

set_tracing_disabled(True)  # traces would be sent to OpenAI

MODEL = os.environ["MODEL"]
QUESTION = os.environ["QUESTION"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"

ONE_CALL = {"tool_choice": "required", "parallel_tool_calls": False}


class Ticket(BaseModel):
    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


@function_tool
def open_ticket(team: Literal["billing", "shipping", "returns", "other"]) -> str:
    """Open a ticket for a complaint."""
    return json.dumps(["opened", team])


def agent(model: str = MODEL, max_tokens: int = 40, chat_route: bool = False, **options: Any) -> Agent[None]:
    """The SDK asks the Responses API by itself; OpenAIChatCompletionsModel asks for chat completions.

    An answer that max_tokens cuts off is an error of the SDK.
    """
    client = AsyncOpenAI(base_url=ADDRESS, api_key="any", max_retries=0)
    kind: type[Model] = OpenAIChatCompletionsModel if chat_route else OpenAIResponsesModel
    settings = ModelSettings(temperature=0, max_tokens=max_tokens, **options.pop("settings", {}))
    return Agent(name="helper", model=kind(model, openai_client=client), model_settings=settings, **options)


def answer(**options: Any) -> Any:
    return Runner.run_sync(agent(**options), QUESTION, max_turns=3).final_output


def chat() -> list[Any]:
    """From the Responses API, and from chat completions."""
    return [answer(model=DEMO_ADAPTER), answer(chat_route=True, max_tokens=12)]


def stream() -> list[list[str]]:
    async def pieces(**options: Any) -> list[str]:
        run = Runner.run_streamed(agent(**options), QUESTION)
        events = [event.data async for event in run.stream_events() if event.type == "raw_response_event"]
        return [event.delta for event in events if event.type == "response.output_text.delta"]

    return [asyncio.run(pieces(model=DEMO_ADAPTER)), asyncio.run(pieces(chat_route=True, max_tokens=12))]


def adapter() -> list[Any]:
    name = os.environ["ADAPTER"]
    return [answer(model=used, max_tokens=12, chat_route=True) for used in (name, f"{MODEL}:{name}")]


def structured() -> list[Any]:
    return [
        answer(model=DEMO_ADAPTER, max_tokens=200, chat_route=chat_route, output_type=Ticket).model_dump()
        for chat_route in (False, True)
    ]


def tools() -> list[Any]:
    """tool_use_behavior: what the tool returns is the output."""
    return [
        json.loads(
            answer(
                max_tokens=64,
                chat_route=chat_route,
                settings=ONE_CALL,
                tools=[open_ticket],
                tool_use_behavior="stop_on_first_tool",
            )
        )
        for chat_route in (False, True)
    ]


def errors() -> list[Any]:
    try:
        answer(model=f"{MODEL}:no-such-adapter")
    except NotFoundError as error:
        return [error.status_code, str(error)]
    return []


report(chat, stream, adapter, structured, tools, errors)
