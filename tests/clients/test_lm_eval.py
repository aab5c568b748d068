"""EleutherAI's lm-evaluation-harness against a base and an adapter, beside its own Hugging Face backend.

The model is tiny and random, its tokenizer that of `tests/helpers`. `lm_eval_tasks/huggingface.json` has what the
harness found on the same weights with its backend `hf` (lm-eval 0.4.13, transformers 5.23.0, torch 2.13.0, float32). To
make it anew, run `scripts/lm_eval_harness.py` in an environment with torch and peft, with `"model": "hf"` and the
arguments `{"pretrained": <folder>, "dtype": "float32", "max_length": 200, "add_bos_token": false}`, for the adapter
also `"peft": <folder>`.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from intaglio.model.config import config_from_hf
from tests.clients.clients import ENVIRONMENTS, HERE
from tests.clients.conftest import ANSWER_DEADLINE_S, FILES
from tests.clients.script_runner import DEADLINE_S
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.servers import serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

TASKS = ["choice", "rolling", "generate"]
JUDGED = json.loads((HERE / "lm_eval_tasks" / "huggingface.json").read_text())
# Sums of up to 54 logprobs, of which each side rounds every one to float32: measured 3.0e-5.
TOLERANCE = 1e-4
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config("gemma3_text", vocab_size=512)
    folder = write_hf_folder(tmp_path_factory.mktemp("tiny") / "model", config, random_weights(config, 0))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces())
    named = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the account's `/ai` on a server with that model and an adapter `mine`."""
    config = config_from_hf(tiny_config("gemma3_text", vocab_size=512))
    adapter = write_peft_adapter(tmp_path_factory.mktemp("adapter"), config, rank=3, seed=5)
    arguments = ["--model", f"tiny={model_folder}", "--format", "f32"]
    with serve(arguments, tmp_path_factory.mktemp("data")) as server:
        address = f"{server.account('harness')}/ai"
        with httpx.Client(base_url=address, timeout=ANSWER_DEADLINE_S) as http:
            http.post("/finetunes", json={"model": "tiny", "name": "mine"}).raise_for_status()
            for name in FILES:
                parts = {"file_name": (None, name), "file": (name, (adapter / name).read_bytes())}
                http.post("/finetunes/mine/finetune-assets", files=parts).raise_for_status()
        yield address


@pytest.fixture
def harness(tmp_path: Path) -> Run:
    """Run the harness and return what `lm_eval_harness.py` prints."""
    program = ENVIRONMENTS / "lm-eval" / "bin" / "python"
    assert program.exists(), f"{program} is missing: `make test-clients` installs it"

    def run(**described: Any) -> dict[str, Any]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LANG": "C.UTF-8",
            "RUN": json.dumps(described),
        }
        done = subprocess.run(
            [str(program), str(HERE / "scripts" / "lm_eval_harness.py")],
            capture_output=True, text=True, timeout=DEADLINE_S, env=environment, cwd=tmp_path, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


def local_completions(served: str, model: str, model_folder: Path) -> dict[str, Any]:
    args = {
        "model": model,
        "base_url": f"{served}/v1/completions",
        "tokenizer": str(model_folder),
        "max_length": 200,
        "batch_size": 4,
    }
    return {"model": "local-completions", "model_args": args, "tasks": TASKS}


@pytest.mark.parametrize(("name", "model"), [("base", "tiny"), ("adapter", "tiny:mine")])
def test_figures_are_those_of_the_harness_on_transformers(
    served: str, model_folder: Path, harness: Run, name: str, model: str
) -> None:
    found, judged = harness(**local_completions(served, model, model_folder)), JUDGED[name]
    for task in ("choice", "rolling"):
        assert _numbers(found[task]["answers"]) == pytest.approx(_numbers(judged[task]["answers"]), abs=TOLERANCE)
        assert found[task]["metrics"] == pytest.approx(judged[task]["metrics"], rel=TOLERANCE)
    # transformers writes each byte of a run that is no UTF-8 as U+FFFD.
    assert _after_bytes(found["generate"]["answers"]) == _after_bytes(judged["generate"]["answers"])


def test_the_harness_needs_no_tokenizer_of_its_own(served: str, model_folder: Path, harness: Run) -> None:
    described = local_completions(served, "tiny", model_folder)
    args = {name: value for name, value in described["model_args"].items() if name != "tokenizer"}
    found = harness(**{**described, "model_args": {**args, "tokenizer_backend": "remote"}})
    for task in ("choice", "rolling"):
        assert _numbers(found[task]["answers"]) == pytest.approx(
            _numbers(JUDGED["base"][task]["answers"]), abs=TOLERANCE
        )


def test_an_adapter_changes_the_figures() -> None:
    assert _numbers(JUDGED["base"]["rolling"]["answers"]) != pytest.approx(
        _numbers(JUDGED["adapter"]["rolling"]["answers"]), abs=1.0
    )


@pytest.mark.parametrize("model", ["tiny", "tiny:mine"])
def test_chat_completions_answer_its_generating_tasks(served: str, harness: Run, model: str) -> None:
    args = {"model": model, "base_url": f"{served}/v1/chat/completions", "max_length": 200}
    found = harness(model="local-chat-completions", model_args=args, tasks=["generate"], apply_chat_template=True)
    questions = (HERE / "lm_eval_tasks" / "generate.jsonl").read_text().splitlines()
    body = {"model": model, "temperature": 0, "max_tokens": 8, "stop": ["\n"]}
    for line, (answers,) in zip(questions, found["generate"]["answers"], strict=True):
        sent = {**body, "messages": [{"role": "user", "content": json.loads(line)["question"]}]}
        response = httpx.post(f"{served}/v1/chat/completions", json=sent, timeout=ANSWER_DEADLINE_S).json()
        assert answers == [response["choices"][0]["message"]["content"]]


def _numbers(answers: Any) -> list[float]:
    """Every number in nested lists, in order."""
    if isinstance(answers, list):
        return [number for one in answers for number in _numbers(one)]
    return [float(answers)]


def _after_bytes(answers: list[list[list[str]]]) -> list[str]:
    return [text.rpartition("\ufffd")[2] for ((text,),) in answers]
