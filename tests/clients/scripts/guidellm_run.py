"""vLLM's load generator on a server: `guidellm` on PyPI

Each call is what `guidellm run` does with the same arguments. One process makes them all: the import takes seconds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from guidellm.__main__ import cli
from report import report

MODEL = os.environ["MODEL"]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai"
NAMES = (os.environ["ADAPTER"], f"{MODEL}:{os.environ['ADAPTER']}")
UNKNOWN = f"{MODEL}:no-such-adapter"
FIELDS = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
QUESTIONS = Path("questions.jsonl")
RESULT = Path("result.json")


def run(model: str, *, streaming: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Two requests at once: "successful" and "errored" ones, as guidellm's result has them."""
    backend = {
        "kind": "openai_http", "target": ADDRESS, "model": model, "request_format": "/v1/chat/completions",
        "stream": streaming, "extras": {"body": FIELDS},
    }  # fmt: skip
    arguments = [
        "run", "--backend", json.dumps(backend), "--profile", "kind=concurrent,streams=2",
        "--constraint", "kind=max_requests,count=2", "--data", f"kind=json_file,path={QUESTIONS}",
        "--output", f"kind=json,path={RESULT}", "--disable-console",
    ]  # fmt: skip
    cli.main(arguments, standalone_mode=False)
    (benchmark,) = json.loads(RESULT.read_text())["benchmarks"]
    return dict(benchmark["requests"])


def answers(model: str, *, streaming: bool = True) -> list[Any]:
    """The text of each answer, and the number of its tokens by the server's usage."""
    requests = run(model, streaming=streaming)["successful"]
    return [[request["output"], request["output_metrics"]["text_tokens"]] for request in requests]


def chat() -> list[Any]:
    return answers(MODEL, streaming=False)


def stream() -> list[Any]:
    return answers(MODEL)


def adapter() -> list[Any]:
    return [answers(name) for name in NAMES]


def errors() -> list[str]:
    """guidellm keeps the status of a refused request, and drops its text."""
    return [request["info"]["error"] for request in run(UNKNOWN)["errored"]]


if __name__ == "__main__":  # its workers are spawned, and import this file
    QUESTIONS.write_text(f"{json.dumps({'prompt': os.environ['QUESTION']})}\n" * 2)
    report(chat, stream, adapter, errors)
