"""OpenAI's SDK for Python: `openai` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import openai
from openai import OpenAI
from pydantic import BaseModel
from report import report

# The only difference from a program for Workers AI.
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"
client = OpenAI(base_url=ADDRESS, api_key="any", max_retries=0)

MODEL = os.environ["MODEL"]
PROMPT = os.environ["PROMPT"]
MESSAGES: Any = [{"role": "user", "content": os.environ["QUESTION"]}]
ADAPTER = os.environ["ADAPTER"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
TOOL = json.loads(os.environ["TOOL"])
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 12}


class Ticket(BaseModel):
    category: Literal["billing", "shipping", "returns", "other"]
    urgent: bool


def prompt() -> Any:
    return client.completions.create(prompt=PROMPT, **GREEDY).model_dump()


def prompt_by_environment() -> str:
    """With the address in the environment the program needs no change."""
    os.environ["OPENAI_BASE_URL"] = ADDRESS
    return OpenAI(api_key="any", max_retries=0).completions.create(prompt=PROMPT, **GREEDY).choices[0].text


def prompt_stream() -> list[str]:
    return [chunk.choices[0].text for chunk in client.completions.create(prompt=PROMPT, stream=True, **GREEDY)]


def chat() -> Any:
    return client.chat.completions.create(messages=MESSAGES, **GREEDY).model_dump()


def stream() -> dict[str, Any]:
    """choices[0] is there on every chunk, since no usage was asked for."""
    chunks = list(client.chat.completions.create(messages=MESSAGES, stream=True, **GREEDY))
    return {
        "role": chunks[0].choices[0].delta.role,
        "pieces": [chunk.choices[0].delta.content or "" for chunk in chunks],
        "reasons": [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason],
    }


def stream_usage() -> list[Any]:
    """With include_usage the last chunk has the usage and no choice."""
    options: Any = {"include_usage": True}
    *_, last = client.chat.completions.create(messages=MESSAGES, stream=True, stream_options=options, **GREEDY)
    assert last.usage is not None
    return [len(last.choices), last.usage.total_tokens]


def several() -> list[Any]:
    """n answers from one request, the same with the same seed."""
    asked: dict[str, Any] = {**GREEDY, "temperature": 1, "seed": 7, "n": 2}
    answers = [client.chat.completions.create(messages=MESSAGES, **asked) for _ in range(2)]
    return [[choice.message.content for choice in answer.choices] for answer in answers]


def adapter() -> str:
    return client.completions.create(prompt=PROMPT, extra_body={"lora": ADAPTER}, **GREEDY).choices[0].text


def demo_adapter() -> Any:
    answer = client.chat.completions.create(messages=MESSAGES, extra_body={"lora": DEMO_ADAPTER}, **GREEDY)
    return answer.choices[0].message.content


def adapter_in_model() -> Any:
    """For tools that have a field for the model and none for an adapter."""
    answer = client.chat.completions.create(messages=MESSAGES, **GREEDY | {"model": f"{MODEL}:{DEMO_ADAPTER}"})
    return answer.choices[0].message.content


def models() -> list[str]:
    return [model.id for model in client.models.list()]


def errors() -> list[Any]:
    try:
        client.chat.completions.create(messages=MESSAGES, extra_body={"lora": "no-such-adapter"}, **GREEDY)
    except openai.NotFoundError as error:
        return [error.status_code, str(error)]
    return []


def structured() -> Any:
    """parse() sends the class as a JSON schema and hands back an object of it."""
    asked = GREEDY | {"max_tokens": 200}
    body = {"lora": DEMO_ADAPTER}
    answer = client.chat.completions.parse(messages=MESSAGES, response_format=Ticket, extra_body=body, **asked)
    ticket = answer.choices[0].message.parsed
    assert ticket is not None
    return ticket.model_dump()


def tools() -> list[Any]:
    asked = GREEDY | {"max_tokens": 64}
    answer = client.chat.completions.create(messages=MESSAGES, tools=[TOOL], tool_choice="required", **asked)
    calls: Any = answer.choices[0].message.tool_calls
    named = [[call.type, call.function.name, json.loads(call.function.arguments)] for call in calls]
    return [named, answer.choices[0].finish_reason]


def logprobs() -> Any:
    answer = client.chat.completions.create(messages=MESSAGES, logprobs=True, top_logprobs=3, **GREEDY)
    found = answer.choices[0].logprobs
    assert found is not None
    return found.model_dump()


def at_root() -> Any:
    """/v1 is the account `local`."""
    root = OpenAI(base_url=ADDRESS.partition("/client/v4")[0] + "/v1", api_key="any", max_retries=0)
    return root.chat.completions.create(messages=MESSAGES, **GREEDY).choices[0].message.content


ASKED: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 12}


def response() -> Any:
    answer = client.responses.create(input=os.environ["QUESTION"], **ASKED)
    return [answer.output_text, answer.model_dump()]


def response_stream() -> Any:
    """The last event has the whole response; the helper's get_final_response() wants one that was not cut."""
    with client.responses.stream(input=os.environ["QUESTION"], **ASKED) as events:
        found: list[Any] = list(events)
    pieces = [event.delta for event in found if event.type == "response.output_text.delta"]
    return [[event.type for event in found], pieces, found[-1].response.output_text]


def response_state() -> Any:
    """A response is read, continued and deleted."""
    first = client.responses.create(input=os.environ["QUESTION"], **ASKED)
    read = client.responses.retrieve(first.id)
    second = client.responses.create(input="And now?", previous_response_id=first.id, **ASKED)
    client.responses.delete(first.id)
    try:
        client.responses.retrieve(first.id)
    except openai.NotFoundError as error:
        gone = error.status_code
    tokens = [one.usage.input_tokens if one.usage else 0 for one in (first, second)]
    return [first.output_text, read.output_text, second.output_text, tokens, gone]


def response_structured() -> Any:
    asked = ASKED | {"max_output_tokens": 200, "model": DEMO_ADAPTER}
    ticket = client.responses.parse(input=os.environ["QUESTION"], text_format=Ticket, **asked).output_parsed
    assert ticket is not None
    return ticket.model_dump()


def response_tools() -> Any:
    """A call, whole and streamed, and the conversation that goes on with its result."""
    tool: Any = {"type": "function", **TOOL["function"]}
    asked = ASKED | {"max_output_tokens": 64, "tools": [tool]}
    question = os.environ["QUESTION"]
    answer = client.responses.create(input=question, tool_choice="required", **asked)
    calls = [item for item in answer.output if item.type == "function_call"]
    with client.responses.stream(input=question, tool_choice="required", **asked) as events:
        whole: Any = list(events)[-1]
    streamed = [item for item in whole.response.output if item.type == "function_call"]
    results: Any = [{"type": "function_call_output", "call_id": one.call_id, "output": "ticket 7"} for one in calls]
    final = client.responses.create(input=results, previous_response_id=answer.id, tool_choice="none", **asked)
    return [*([[one.name, json.loads(one.arguments)] for one in found] for found in (calls, streamed)), final.status]


report(
    prompt, prompt_by_environment, prompt_stream, chat, stream, stream_usage, several, adapter, demo_adapter,
    adapter_in_model, models, errors, structured, tools, logprobs, at_root, response, response_stream, response_state,
    response_structured, response_tools,
)  # fmt: skip
