"""LlamaIndex: `llama-index-llms-openai-like` on PyPI"""

import os
from typing import Any, Literal

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel
from report import report

MODEL = os.environ["MODEL"]
QUESTION = os.environ["QUESTION"]
MESSAGES = [ChatMessage(role="user", content=QUESTION)]


class Ticket(BaseModel):
    """A ticket for a complaint."""

    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def open_ticket(team: Literal["billing", "shipping", "returns", "other"]) -> str:
    """Open a ticket for a complaint."""
    return team


def model(name: str = MODEL, max_tokens: int = 12, **options: Any) -> OpenAILike:
    """is_chat_model: without it the library asks for completions of a prompt."""
    return OpenAILike(
        model=name,
        api_base=f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1",
        api_key="any",
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0,
        max_tokens=max_tokens,
        max_retries=0,
        **options,
    )


def prompt() -> str:
    llm = model()
    llm.is_chat_model = False
    return llm.complete(os.environ["PROMPT"]).text


def chat() -> str:
    return str(model().chat(MESSAGES).message.content)


def stream() -> list[str]:
    return [str(part.delta) for part in model().stream_chat(MESSAGES)]


def adapter() -> list[str]:
    name = os.environ["ADAPTER"]
    return [str(model(used).chat(MESSAGES).message.content) for used in (name, f"{MODEL}:{name}")]


def structured() -> list[Any]:
    """A call of a tool, and with should_use_structured_outputs a JSON schema in response_format."""
    ask = PromptTemplate("{question}")
    models = [
        model(max_tokens=200),
        model(os.environ["DEMO_ADAPTER"], 200, should_use_structured_outputs=True),
    ]
    return [llm.structured_predict(Ticket, ask, question=QUESTION).model_dump() for llm in models]


def tools() -> list[Any]:
    tool = FunctionTool.from_defaults(open_ticket)
    llm = model(max_tokens=64)
    answer = llm.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    calls = llm.get_tool_calls_from_response(answer)
    return [[call.tool_name, call.tool_kwargs] for call in calls]


def errors() -> list[Any]:
    try:
        model(f"{MODEL}:no-such-adapter").chat(MESSAGES)
    except openai.NotFoundError as error:
        return [error.status_code, str(error)]
    return []


report(prompt, chat, stream, adapter, structured, tools, errors)
