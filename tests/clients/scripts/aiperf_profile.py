"""NVIDIA's load generator on a server: `aiperf` on PyPI"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from report import report
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

MODEL = os.environ["MODEL"]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai"
NAMES = (os.environ["ADAPTER"], f"{MODEL}:{os.environ['ADAPTER']}")
UNKNOWN = f"{MODEL}:no-such-adapter"
TOKENIZER = Path("words").resolve()
FIELDS = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of words: it counts the prompts. aiperf's "builtin" one is downloaded when it is used."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<unk>").save_pretrained(folder)


def profile(*models: str, streaming: bool = False) -> list[dict[str, Any]]:
    """Two requests for each model, two at once: the records of all of them."""
    question = json.dumps({"text": os.environ["QUESTION"]})
    Path("questions.jsonl").write_text(f"{question}\n" * len(models))  # each line goes to the next model
    folder = Path("streams" if streaming else "whole")
    command = [
        str(Path(sys.executable).with_name("aiperf")), "profile", "--model", ",".join(models), "--url", ADDRESS,
        "--endpoint-type", "chat", "--tokenizer", str(TOKENIZER), "--extra-inputs", json.dumps(FIELDS),
        "--input-file", "questions.jsonl", "--custom-dataset-type", "single_turn",
        "--request-count", str(2 * len(models)), "--concurrency", "2", "--workers-max", "1",
        "--no-gpu-telemetry", "--no-server-metrics", "--ui", "none",
        "--artifact-dir", str(folder), "--export-level", "raw", *(["--streaming"] if streaming else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    records = folder / "profile_export_raw.jsonl"
    if not records.exists():
        raise RuntimeError(f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [json.loads(line) for line in records.read_text().splitlines()]


def by_model(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Model -> what its requests were answered: the chunks of each, or its error."""
    found: dict[str, list[Any]] = {}
    for record in records:
        answer = record.get("error") or chunks(record)
        found.setdefault(record["payload"]["model"], []).append(answer)
    return found


def chunks(record: dict[str, Any]) -> list[Any]:
    """The server's JSON: one chunk for each event of a stream, or one answer."""
    found: list[Any] = []
    for response in record["responses"]:
        texts = [packet["value"] for packet in response.get("packets", []) if packet["name"] == "data"]
        found += [json.loads(text) for text in texts or [response["text"]] if text != "[DONE]"]
    return found


def chat() -> list[Any]:
    """Whole answers: the text and the number of tokens of each."""
    answers = by_model(profile(MODEL))[MODEL]
    return [[answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]] for (answer,) in answers]


def texts(model: str) -> list[str]:
    """What the streams of a model add up to."""
    choices = [[choice for chunk in answer for choice in chunk["choices"]] for answer in streams[model]]
    return ["".join(choice["delta"].get("content") or "" for choice in answer) for answer in choices]


def stream() -> list[Any]:
    """The texts, and the number of tokens that the last chunk of each stream counts."""
    return [texts(MODEL), [answer[-1]["usage"]["completion_tokens"] for answer in streams[MODEL]]]


def adapter() -> list[list[str]]:
    return [texts(name) for name in NAMES]


def errors() -> list[Any]:
    """aiperf keeps the status and the body of a failed request."""
    return streams[UNKNOWN]


write_tokenizer(TOKENIZER)
streams = by_model(profile(MODEL, *NAMES, UNKNOWN, streaming=True))
report(chat, stream, adapter, errors)
