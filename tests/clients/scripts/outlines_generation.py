"""Outlines on a server: `outlines` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import outlines
import outlines.exceptions
from openai import OpenAI
from pydantic import BaseModel
from report import report

MODEL = os.environ["MODEL"]
QUESTION = os.environ["QUESTION"]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"


class Ticket(BaseModel):
    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def model(name: str = MODEL) -> Any:
    return outlines.from_openai(OpenAI(base_url=ADDRESS, api_key="any", max_retries=0), name)


def chat() -> str:
    return model()(QUESTION, temperature=0, max_tokens=12)


def stream() -> list[str]:
    return list(model().stream(QUESTION, temperature=0, max_tokens=12))


def adapter() -> list[str]:
    name = os.environ["ADAPTER"]
    return [model(used)(QUESTION, temperature=0, max_tokens=12) for used in (name, f"{MODEL}:{name}")]


def structured() -> Any:
    """A pydantic model, sent as a JSON schema in response_format."""
    return json.loads(model(os.environ["DEMO_ADAPTER"])(QUESTION, Ticket, temperature=0, max_tokens=200))


def errors() -> str:
    """Outlines has errors of its own; their text has the server's."""
    try:
        model(f"{MODEL}:no-such-adapter")(QUESTION, max_tokens=4)
    except outlines.exceptions.APIError as error:
        return str(error)
    return ""


report(chat, stream, adapter, structured, errors)
