"""litellm: `litellm` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any

# Read when litellm is imported: its list of models and prices comes with the package instead of from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from report import report

litellm.telemetry = False
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"
MODEL = f"cloudflare/{os.environ['MODEL']}"
MESSAGES = [{"role": "user", "content": os.environ["QUESTION"]}]
ADAPTER = os.environ["ADAPTER"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
SCHEMA = json.loads(os.environ["SCHEMA"])
TOOL = json.loads(os.environ["TOOL"])


def completion(max_tokens: int = 12, **fields: Any) -> Any:
    """api_base is the only difference from a program for Workers AI."""
    return litellm.completion(
        model=MODEL,
        api_base=ADDRESS,
        api_key="any",
        messages=MESSAGES,
        temperature=0,
        max_tokens=max_tokens,
        num_retries=0,
        **fields,
    )


def chat() -> list[Any]:
    answer = completion()
    return [answer.choices[0].message.content, answer.usage.total_tokens, answer.choices[0].finish_reason]


def chat_by_environment() -> str:
    """With the address in the environment the program needs no change."""
    os.environ["CLOUDFLARE_API_BASE"] = ADDRESS
    answer = litellm.completion(model=MODEL, api_key="any", messages=MESSAGES, temperature=0, max_tokens=12)
    return answer.choices[0].message.content


def stream() -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in completion(stream=True)]


def adapter() -> str:
    return completion(extra_body={"lora": ADAPTER}).choices[0].message.content


def demo_adapter() -> str:
    return completion(extra_body={"lora": DEMO_ADAPTER}).choices[0].message.content


def errors() -> list[Any]:
    try:
        completion(extra_body={"lora": "no-such-adapter"})
    except litellm.NotFoundError as error:
        return [error.status_code, str(error)]
    return []


def structured() -> Any:
    form = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": SCHEMA, "strict": True}}
    answer = completion(200, response_format=form, extra_body={"lora": DEMO_ADAPTER})
    return json.loads(answer.choices[0].message.content)


def tools() -> list[Any]:
    answer = completion(64, tools=[TOOL], tool_choice="required")
    calls = answer.choices[0].message.tool_calls
    return [
        [[call.function.name, json.loads(call.function.arguments)] for call in calls],
        answer.choices[0].finish_reason,
    ]


def logprobs() -> Any:
    return [
        [token.token, token.logprob] for token in completion(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    ]


report(chat, chat_by_environment, stream, adapter, demo_adapter, errors, structured, tools, logprobs)
