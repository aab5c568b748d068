"""aider, the editor for programs: `aider-chat` on PyPI, started by its own `main` with the options of its command line

By command: `aider --model openai/<model> --openai-api-base <address> --openai-api-key any ...`
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from aider.main import main
from report import report

MODEL = os.environ["MODEL"]
ADAPTER = os.environ["ADAPTER"]
UNKNOWN = f"{MODEL}:no-such-adapter"
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"
OPTIONS = [
    "--openai-api-base", ADDRESS, "--openai-api-key", "any",
    # Nothing is looked up elsewhere: the limits of the models are in a file.
    "--model-metadata-file", "metadata.json", "--analytics-disable", "--no-check-update",
    "--no-show-release-notes", "--no-show-model-warnings",
    "--model-settings-file", "settings.json", "--no-git", "--yes-always", "--no-pretty", "--no-detect-urls",
]  # fmt: skip
FILE = Path("answer.py")
# The form in which aider's edit format `whole` expects a new text of a file.
WHOLE = r"answer\.py\n```\nprint\([0-9]{2}\)\n```"


def start(model: str, *options: str, **parameters: Any) -> Any:
    """aider, with these parameters in each of its requests."""
    names = (MODEL, ADAPTER, f"{MODEL}:{ADAPTER}", UNKNOWN)
    limits = {"max_input_tokens": 8192, "max_output_tokens": 1024, "litellm_provider": "openai", "mode": "chat"}
    Path("metadata.json").write_text(json.dumps({f"openai/{name}": limits for name in names}))
    # JSON is YAML, which aider reads; this name stands for every model.
    Path("settings.json").write_text(json.dumps([{"name": "aider/extra_params", "extra_params": parameters}]))
    return main([*OPTIONS, "--model", f"openai/{model}", *options], return_coder=True)


def ask(model: str, *options: str) -> list[Any]:
    """The messages that aider sends for a question, and the answer."""
    coder = start(model, "--edit-format", "ask", *options, max_tokens=12)
    sent: list[Any] = []
    send = coder.main_model.send_completion

    def kept(messages: Any, *arguments: Any, **named: Any) -> Any:
        sent.extend(messages)
        return send(messages, *arguments, **named)

    coder.main_model.send_completion = kept
    return [sent, coder.run(with_message=os.environ["QUESTION"])]


def chat() -> list[Any]:
    return ask(MODEL, "--no-stream")


def stream() -> list[Any]:
    return ask(MODEL, "--stream")


def adapter() -> list[Any]:
    return [ask(name, "--no-stream") for name in (ADAPTER, f"{MODEL}:{ADAPTER}")]


def structured() -> list[str]:
    """The file before and after an edit whose form the server enforces, and the model's answer."""
    FILE.write_text("print(1)\n")
    before = FILE.read_text()
    outputs = {"structured_outputs": {"regex": WHOLE}}
    coder = start(MODEL, "--edit-format", "whole", "--no-stream", str(FILE), max_tokens=64, extra_body=outputs)
    return [before, coder.run(with_message="Print another number."), FILE.read_text()]


def errors() -> str:
    """What aider writes into the history of a chat that fails."""
    history = Path("errors.md")
    coder = start(UNKNOWN, "--no-stream", "--chat-history-file", str(history))
    coder.run(with_message=os.environ["QUESTION"])
    return history.read_text()


report(chat, stream, adapter, structured, errors)
