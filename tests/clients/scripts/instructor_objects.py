"""instructor: `instructor` on PyPI"""

from __future__ import annotations

import os
from typing import Any, Literal

import instructor
from instructor.exceptions import InstructorRetryException
from openai import OpenAI
from pydantic import BaseModel
from report import report

MESSAGES = [{"role": "user", "content": os.environ["QUESTION"]}]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"


class Ticket(BaseModel):
    """A ticket for a complaint."""

    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def client(mode: instructor.Mode) -> Any:
    return instructor.from_openai(OpenAI(base_url=ADDRESS, api_key="any", max_retries=0), mode=mode)


def asked(model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": MESSAGES,
        "response_model": Ticket,
        "temperature": 0,
        "max_tokens": 200,
        "max_retries": 1,
    }


def structured() -> Any:
    """As a JSON schema in response_format."""
    answer = client(instructor.Mode.JSON_SCHEMA).chat.completions.create(**asked(os.environ["DEMO_ADAPTER"]))
    return answer.model_dump()


def tools() -> list[Any]:
    """As a call of a tool: the library's default, and with the fields of the model in strict form."""
    modes = (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT)
    return [client(mode).chat.completions.create(**asked(os.environ["MODEL"])).model_dump() for mode in modes]


def adapter() -> list[Any]:
    """Both forms of an adapter's name as the model."""
    names = (os.environ["ADAPTER"], f"{os.environ['MODEL']}:{os.environ['ADAPTER']}")
    return [client(instructor.Mode.JSON_SCHEMA).chat.completions.create(**asked(name)).model_dump() for name in names]


def stream() -> list[Any]:
    """The object as it grows."""
    parts = client(instructor.Mode.JSON_SCHEMA).chat.completions.create_partial(**asked(os.environ["DEMO_ADAPTER"]))
    return [part.model_dump() for part in parts]


def errors() -> str:
    try:
        client(instructor.Mode.TOOLS).chat.completions.create(**asked(f"{os.environ['MODEL']}:no-such-adapter"))
    except InstructorRetryException as error:
        return str(error)
    return ""


report(structured, tools, adapter, stream, errors)
