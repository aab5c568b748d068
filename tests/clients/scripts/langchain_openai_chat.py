"""LangChain's package for OpenAI: `langchain-openai` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import openai
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from report import report

MODEL = os.environ["MODEL"]
QUESTION = os.environ["QUESTION"]
TOOL = json.loads(os.environ["TOOL"])


class Ticket(BaseModel):
    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def model(name: str = MODEL, max_tokens: int = 12, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1",
        api_key="any",
        model=name,
        temperature=0,
        max_tokens=max_tokens,
        max_retries=0,
        **options,
    )


def chat() -> list[Any]:
    """On both routes: chat completions, and the Responses API."""
    answers = [model().invoke(QUESTION), model(use_responses_api=True).invoke(QUESTION)]
    return [[answer.text, answer.usage_metadata["total_tokens"]] for answer in answers]


def stream() -> list[list[str]]:
    return [
        [chunk.text for chunk in model(use_responses_api=responses).stream(QUESTION)] for responses in (False, True)
    ]


def adapter() -> list[str]:
    name = os.environ["ADAPTER"]
    return [model(name).invoke(QUESTION).text, model(f"{MODEL}:{name}").invoke(QUESTION).text]


def structured() -> Any:
    return model(os.environ["DEMO_ADAPTER"], 200).with_structured_output(Ticket).invoke(QUESTION).model_dump()


def tools() -> list[Any]:
    answer = model(max_tokens=64).bind_tools([TOOL], tool_choice="required").invoke(QUESTION)
    return [[call["name"], call["args"]] for call in answer.tool_calls]


def errors() -> list[Any]:
    try:
        model(f"{MODEL}:no-such-adapter").invoke(QUESTION)
    except openai.NotFoundError as error:
        return [error.status_code, str(error)]
    return []


report(chat, stream, adapter, structured, tools, errors)
