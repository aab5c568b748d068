"""LiteLLM's proxy in front of the server: `litellm[proxy]` on PyPI, asked by OpenAI's SDK"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from openai import APIStatusError, OpenAI
from report import report

MESSAGES: Any = [{"role": "user", "content": os.environ["QUESTION"]}]
START_DEADLINE_S = 240

# One entry for every model and adapter: what follows `hosted_vllm/` is the model's name at the server.
CONFIG = """
model_list:
  - model_name: base
    litellm_params: {model: "hosted_vllm/%(MODEL)s", api_base: "%(ADDRESS)s", api_key: any}
  - model_name: triage
    litellm_params: {model: "hosted_vllm/%(DEMO_ADAPTER)s", api_base: "%(ADDRESS)s", api_key: any}
  - model_name: unknown
    litellm_params: {model: "hosted_vllm/%(MODEL)s:no-such-adapter", api_base: "%(ADDRESS)s", api_key: any}
  - model_name: "*"
    litellm_params: {model: "hosted_vllm/*", api_base: "%(ADDRESS)s", api_key: any}
litellm_settings: {telemetry: false, num_retries: 0}
router_settings: {num_retries: 0, disable_cooldowns: true}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
"""


@contextlib.contextmanager
def proxy() -> Iterator[str]:
    """The proxy's address while it runs."""
    address = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"
    config = Path("config.yaml")
    config.write_text(CONFIG % {**os.environ, "ADDRESS": address})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("litellm")), "--config", str(config), "--host", "127.0.0.1"]
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # its list of models comes with the package
    with Path("proxy.log").open("w") as log:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=environment)
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def wait_until_ready(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/health/liveliness").status_code == 200:
                return
        time.sleep(0.2)
    raise RuntimeError(Path("proxy.log").read_text())


def completion(model: str = "base", max_tokens: int = 12, **fields: Any) -> Any:
    return client.chat.completions.create(
        model=model, messages=MESSAGES, temperature=0, max_tokens=max_tokens, **fields
    )


def chat() -> list[Any]:
    answer = completion()
    return [answer.choices[0].message.content, answer.usage.total_tokens, answer.choices[0].finish_reason]


def stream() -> list[str]:
    return [chunk.choices[0].delta.content or "" for chunk in completion(stream=True) if chunk.choices]


def adapter() -> list[str]:
    """By a name of the configuration, and by the adapter's own through its wildcard."""
    names = ("triage", os.environ["ADAPTER"])
    return [completion(name).choices[0].message.content for name in names]


def structured() -> Any:
    schema = json.loads(os.environ["SCHEMA"])
    form = {"type": "json_schema", "json_schema": {"name": "ticket", "schema": schema, "strict": True}}
    return json.loads(completion("triage", 200, response_format=form).choices[0].message.content)


def tools() -> list[Any]:
    answer = completion(max_tokens=64, tools=[json.loads(os.environ["TOOL"])], tool_choice="required")
    return [[call.function.name, json.loads(call.function.arguments)] for call in answer.choices[0].message.tool_calls]


def errors() -> list[Any]:
    try:
        completion("unknown")
    except APIStatusError as error:
        return [error.status_code, str(error)]
    return []


with proxy() as address:
    client = OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    report(chat, stream, adapter, structured, tools, errors)
