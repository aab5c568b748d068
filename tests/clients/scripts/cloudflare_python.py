"""Cloudflare's own SDK for Python: `cloudflare` on PyPI"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cloudflare
from cloudflare import Cloudflare
from report import report

# The only difference from a program for Workers AI.
client = Cloudflare(base_url=os.environ["BASE_URL"], api_token="any", max_retries=0)

ACCOUNT = os.environ["ACCOUNT"]
MODEL = os.environ["MODEL"]
PROMPT = os.environ["PROMPT"]
QUESTION = [{"role": "user", "content": os.environ["QUESTION"]}]
ADAPTER = os.environ["ADAPTER"]
DEMO_ADAPTER = os.environ["DEMO_ADAPTER"]
SCHEMA = json.loads(os.environ["SCHEMA"])
TOOL = json.loads(os.environ["TOOL"])
GREEDY: dict[str, Any] = {"account_id": ACCOUNT, "temperature": 0, "max_tokens": 12}


def prompt() -> Any:
    return client.ai.run(MODEL, prompt=PROMPT, raw=True, **GREEDY)


def prompt_by_environment() -> Any:
    """With the address in the environment the program needs no change."""
    os.environ["CLOUDFLARE_BASE_URL"] = os.environ["BASE_URL"]
    return Cloudflare(api_token="any", max_retries=0).ai.run(MODEL, prompt=PROMPT, raw=True, **GREEDY)


def chat() -> Any:
    return client.ai.run(MODEL, messages=QUESTION, **GREEDY)


def stream() -> list[str]:
    """run(stream=True) fails inside the SDK for every response. This way works."""
    with client.ai.with_streaming_response.run(MODEL, prompt=PROMPT, raw=True, stream=True, **GREEDY) as response:
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line)["response"] for line in lines]


def stream_by_run() -> str:
    try:
        client.ai.run(MODEL, prompt=PROMPT, raw=True, stream=True, **GREEDY)
    except AttributeError as error:
        return str(error)
    return ""


def adapter() -> Any:
    return client.ai.run(MODEL, prompt=PROMPT, raw=True, lora=ADAPTER, **GREEDY)


def demo_adapter() -> Any:
    return client.ai.run(MODEL, messages=QUESTION, extra_body={"lora": DEMO_ADAPTER}, **GREEDY)


def finetunes() -> dict[str, Any]:
    name = os.environ["NEW_ADAPTER"]
    made = client.ai.finetunes.create(account_id=ACCOUNT, model=MODEL, name=name, description="by the SDK")
    assert made is not None
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        content = Path(os.environ["ADAPTER_FOLDER"], file).read_bytes()
        client.ai.finetunes.assets.create(made.id, account_id=ACCOUNT, file=content, file_name=file)
    listed: Any = client.ai.finetunes.list(account_id=ACCOUNT)
    public = client.ai.finetunes.public.list(account_id=ACCOUNT, limit=2, order_by="name")
    return {
        "id": made.id,
        "listed": [[item.id, item.name, item.model] for item in listed],
        "public": [item.name for item in public],
        "answer": client.ai.run(MODEL, prompt=PROMPT, raw=True, lora=made.id, **GREEDY),
    }


def models() -> dict[str, Any]:
    """The SDK asks for page after page until one is empty."""
    schema: Any = client.ai.models.schema.get(account_id=ACCOUNT, model=MODEL)
    return {
        "names": [model["name"] for model in client.ai.models.list(account_id=ACCOUNT)],  # type: ignore[index]
        "schema": sorted(dict(schema)),
    }


def errors() -> list[Any]:
    try:
        client.ai.run(MODEL, prompt=PROMPT, lora="no-such-adapter", **GREEDY)
    except cloudflare.NotFoundError as error:
        return [error.status_code, error.errors[0].code, str(error)]
    return []


def structured() -> Any:
    form = {"type": "json_schema", "json_schema": SCHEMA}
    return client.ai.run(
        MODEL, messages=QUESTION, response_format=form, lora=DEMO_ADAPTER, **GREEDY | {"max_tokens": 200}
    )


def tools() -> Any:
    return client.ai.run(
        MODEL, messages=QUESTION, tools=[TOOL], extra_body={"tool_choice": "required"}, **GREEDY | {"max_tokens": 64}
    )


def batch() -> list[Any]:
    one = {"prompt": PROMPT, "raw": True, "temperature": 0, "max_tokens": 12}
    requests = [{**one, "external_reference": "first"}, {**one, "lora": ADAPTER, "external_reference": "second"}]
    queued = queue_request(requests=requests)
    for _ in range(200):
        result = queue_request(request_id=queued["request_id"])
        if "responses" in result:
            return [queued["status"], result["responses"]]
        time.sleep(0.1)
    raise TimeoutError("the batch did not end")


def queue_request(**body: Any) -> Any:
    """The SDK knows nothing of batches; its extra_body and extra_query take them."""
    query = {"queueRequest": "true"}
    return client.ai.run(MODEL, account_id=ACCOUNT, messages=[], extra_query=query, extra_body=body)


report(
    prompt, prompt_by_environment, chat, stream, stream_by_run, adapter, demo_adapter, finetunes, models, errors,
    structured, tools, batch,
)  # fmt: skip
