"""Pydantic AI with Cloudflare's provider: `pydantic-ai-cloudflare` on PyPI"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal

import httpx
from pydantic import BaseModel
from pydantic_ai import Agent, ModelHTTPError
from pydantic_ai.messages import ModelResponse
from pydantic_ai_cloudflare import CloudflareProvider
from report import report

QUESTION = os.environ["QUESTION"]
ADAPTER = os.environ["ADAPTER"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
OUR_SERVER = httpx.URL(os.environ["BASE_URL"])


class ToOurServer(httpx.AsyncHTTPTransport):
    """The provider has no option for the address, but takes an HTTP client: this one sends requests to our server."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        request.url = request.url.copy_with(scheme=OUR_SERVER.scheme, host=OUR_SERVER.host, port=OUR_SERVER.port)
        return await super().handle_async_request(request)


class Ticket(BaseModel):
    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def agent(output: Any = str, max_tokens: int = 12, **settings: Any) -> Agent[None, Any]:
    """gateway_id=None: straight to the account's /ai/v1, not through an AI gateway."""
    provider = CloudflareProvider(
        account_id=os.environ["ACCOUNT"],
        api_key="any",
        gateway_id=None,
        http_client=httpx.AsyncClient(transport=ToOurServer(), timeout=60),
    )
    settings |= {"temperature": 0, "max_tokens": max_tokens, "parallel_tool_calls": False}
    return Agent(provider.chat_model(os.environ["MODEL"]), output_type=output, model_settings=settings, retries=0)


def chat() -> list[Any]:
    result = agent().run_sync(QUESTION)
    return [result.output, result.usage.total_tokens]


def stream() -> list[str]:
    async def pieces() -> list[str]:
        async with agent().run_stream(QUESTION) as result:
            return [piece async for piece in result.stream_text(delta=True, debounce_by=None)]

    return asyncio.run(pieces())


def adapter() -> Any:
    return agent(extra_body={"lora": ADAPTER}).run_sync(QUESTION).output


def demo_adapter() -> Any:
    return agent(extra_body={"lora": DEMO_ADAPTER}).run_sync(QUESTION).output


def errors() -> list[Any]:
    try:
        agent(extra_body={"lora": "no-such-adapter"}).run_sync(QUESTION)
    except ModelHTTPError as error:
        return [error.status_code, str(error)]
    return []


def structured() -> Any:
    """An output type: for this family of models the library asks for it as a call of a tool."""
    return agent(Ticket, 200).run_sync(QUESTION).output.model_dump()


def tools() -> Any:
    """An output function: the model has to call it, and what it returns is the output."""

    def open_ticket(team: Literal["billing", "shipping", "returns", "other"]) -> list[str]:
        """Open a ticket for a complaint."""
        return ["opened", team]

    return agent(open_ticket, 64).run_sync(QUESTION).output


def logprobs() -> Any:
    result = agent(openai_logprobs=True, openai_top_logprobs=2).run_sync(QUESTION)
    answer = result.all_messages()[-1]
    assert isinstance(answer, ModelResponse) and answer.provider_details is not None
    return [[token["token"], token["logprob"]] for token in answer.provider_details["logprobs"]]


report(chat, stream, adapter, demo_adapter, errors, structured, tools, logprobs)
