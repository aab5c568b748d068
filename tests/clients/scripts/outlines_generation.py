"""Outlines on a server: `outlines` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import outlines
import outlines.exceptions
from openai import OpenAI
from outlines.types import CFG, Regex
from pydantic import BaseModel
from report import report

MODEL = os.environ["MODEL"]
QUESTION = os.environ["QUESTION"]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"

Category = Literal["billing", "shipping", "returns", "other"]


class Ticket(BaseModel, extra="forbid"):
    """Without extra="forbid" vLLM's field allows other keys too, and a small model may write them until max_tokens."""

    category: Category
    urgent: bool


def model(name: str = MODEL) -> Any:
    """A schema goes into response_format; it takes no other output types."""
    return outlines.from_openai(OpenAI(base_url=ADDRESS, api_key="any", max_retries=0), name)


def model_of_vllm(name: str = MODEL) -> Any:
    """Any output type goes into vLLM's structured_outputs."""
    return outlines.from_vllm(OpenAI(base_url=ADDRESS, api_key="any", max_retries=0), name)


def chat() -> list[str]:
    return [made()(QUESTION, temperature=0, max_tokens=12) for made in (model, model_of_vllm)]


def stream() -> list[list[str]]:
    return [list(made().stream(QUESTION, temperature=0, max_tokens=12)) for made in (model, model_of_vllm)]


def adapter() -> list[str]:
    name = os.environ["ADAPTER"]
    return [model(used)(QUESTION, temperature=0, max_tokens=12) for used in (name, f"{MODEL}:{name}")]


def structured() -> list[Any]:
    """A pydantic model."""
    name = os.environ["DEMO_ADAPTER"]
    made = (model(name), model_of_vllm(name))
    return [json.loads(used(QUESTION, Ticket, temperature=0, max_tokens=200)) for used in made]


def choice() -> str:
    return model_of_vllm()(QUESTION, Category, temperature=0, max_tokens=9)


def regex() -> str:
    return model_of_vllm()(QUESTION, Regex("[A-C]{2}-[0-9]{4}"), temperature=0, max_tokens=16)


def grammar() -> str:
    return model_of_vllm()(QUESTION, CFG('root ::= "yes" | "no"'), temperature=0, max_tokens=8)


def errors() -> str:
    """Outlines has errors of its own; their text has the server's."""
    try:
        model(f"{MODEL}:no-such-adapter")(QUESTION, max_tokens=4)
    except outlines.exceptions.APIError as error:
        return str(error)
    return ""


report(chat, stream, adapter, structured, choice, regex, grammar, errors)
