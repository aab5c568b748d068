"""LangChain, `langchain-cloudflare` on PyPI, on the route that ENDPOINT_FORMAT names."""

from __future__ import annotations

import json
import os
from typing import Any

import httpx
from langchain_cloudflare import ChatCloudflareWorkersAI
from langchain_core.messages import AIMessageChunk
from langchain_core.output_parsers import JsonOutputParser
from report import report

QUESTION = os.environ["QUESTION"]
ADAPTER = os.environ["ADAPTER"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
SCHEMA = json.loads(os.environ["SCHEMA"])
TOOL = json.loads(os.environ["TOOL"])


def model(max_tokens: int = 12, **fields: Any) -> ChatCloudflareWorkersAI:
    """base_url is the only difference from a program for Workers AI. Other fields go into model_kwargs."""
    return ChatCloudflareWorkersAI(
        base_url=os.environ["BASE_URL"],
        account_id=os.environ["ACCOUNT"],
        api_token="any",
        model=os.environ["MODEL"],
        endpoint_format=os.environ["ENDPOINT_FORMAT"],
        temperature=0,
        max_tokens=max_tokens,
        max_retries=0,
        model_kwargs=fields,
    )


def chat() -> list[Any]:
    answer = model().invoke(QUESTION)
    return [answer.content, answer.usage_metadata]


def stream() -> list[Any]:
    chunks = list(model().stream(QUESTION))
    whole = AIMessageChunk(content="")
    for chunk in chunks:
        whole += chunk
    return [[chunk.content for chunk in chunks], whole.response_metadata["usage"]]


def adapter() -> Any:
    return model(lora=ADAPTER).invoke(QUESTION).content


def demo_adapter() -> Any:
    return model(lora=DEMO_ADAPTER).invoke(QUESTION).content


def adapter_stream() -> str:
    return "".join(str(chunk.content) for chunk in model(lora=ADAPTER).stream(QUESTION))


def errors() -> list[Any]:
    """The SDK raises httpx's error. Its text has the status; the body with the reason has to be asked for."""
    try:
        model(lora="no-such-adapter").invoke(QUESTION)
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, error.response.json()["errors"][0]["message"]]
    return []


def structured() -> Any:
    """A schema that the answer cannot leave. with_structured_output() would only ask this family of models for JSON."""
    form = {"type": "json_schema", "json_schema": SCHEMA}
    return (model(200, lora=DEMO_ADAPTER).bind(response_format=form) | JsonOutputParser()).invoke(QUESTION)


def tools() -> Any:
    answer = model(64).bind_tools([TOOL], tool_choice="any").invoke(QUESTION)
    return [[call["name"], call["args"]] for call in answer.tool_calls]


report(chat, stream, adapter, demo_adapter, adapter_stream, errors, structured, tools)
