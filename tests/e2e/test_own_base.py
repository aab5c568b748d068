"""`intaglio serve --model ID=PATH` with small random checkpoints of Gemma 1, 2 and 3, over HTTP."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from intaglio import LLM, SamplingParams
from intaglio.model.config import config_from_hf
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.chat_templates import CHATML, render_with_jinja
from tests.helpers.checkpoints import Vocabulary, random_weights, tiny_config, write_gguf, write_hf_folder
from tests.helpers.servers import LiveServer, serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json, write_tokenizer_model

SEVEN_B = "@cf/google/gemma-7b-it-lora"
FINETUNED = "@local/finetuned"
OWN_TEMPLATE = CHATML.replace(
    "{% for message in messages %}",
    "{% if messages[0].role != 'user' %}{{ raise_exception('Begin with a question') }}{% endif %}"
    "{% for message in messages %}",
)
CHAT = {"messages": [{"role": "user", "content": "what is the answer"}], "temperature": 0, "max_tokens": 12}


@dataclass(frozen=True)
class Bases:
    """paths: by model id. The Gemma 3 folder has no tokenizer of its own."""

    server: LiveServer
    paths: dict[str, Path]
    tokenizer: Path

    def llm(self, model_id: str) -> LLM:
        return LLM(self.paths[model_id], tokenizer=str(self.tokenizer), kv_cache_bytes=1 << 24)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bases]:
    root = tmp_path_factory.mktemp("bases")
    pieces = tiny_pieces(512)
    gemma1 = tiny_config("gemma", vocab_size=512)
    write_hf_folder(root / "gemma1", gemma1, random_weights(gemma1, 1), dtype="bfloat16", shards=2)
    write_tokenizer_model(root / "gemma1" / "tokenizer.model", pieces)
    gemma2 = tiny_config("gemma2", vocab_size=512)
    vocabulary = Vocabulary(pieces.tokens, pieces.scores, pieces.types)
    write_gguf(root / "gemma2.gguf", gemma2, random_weights(gemma2, 2), vocabulary=vocabulary)
    gemma3 = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(root / "gemma3", gemma3, random_weights(gemma3, 3))
    tokenizer = root / "tokenizer.json"
    write_tokenizer_json(tokenizer, pieces)
    write_hf_folder(root / "finetuned", gemma3, random_weights(gemma3, 4))
    write_tokenizer_json(root / "finetuned" / "tokenizer.json", pieces)
    (root / "finetuned" / "chat_template.jinja").write_text(OWN_TEMPLATE)
    paths = {SEVEN_B: root / "gemma1", "@local/gemma-2": root / "gemma2.gguf", FINETUNED: root / "finetuned"}
    paths["@local/gemma-3"] = root / "gemma3"
    arguments = [f"--model={model_id}={path}" for model_id, path in paths.items()]
    arguments += ["--tokenizer", SEVEN_B, "--kv-cache-bytes", str(1 << 24), "--cache-dir", str(root / "cache")]
    with serve(arguments, root / "data") as server:
        yield Bases(server, paths, tokenizer)


def run(server: LiveServer, model_id: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.account()}/ai/run/{model_id}", json=body, timeout=60)


@pytest.mark.parametrize("model_id", [SEVEN_B, "@local/gemma-2", "@local/gemma-3"])
def test_each_version_gives_the_same_completion_over_http_as_in_process(bases: Bases, model_id: str) -> None:
    (expected,) = bases.llm(model_id).chat([CHAT["messages"]], SamplingParams(temperature=0, max_tokens=12))
    answer = run(bases.server, model_id, CHAT)
    assert answer.status_code == 200
    assert answer.json()["result"]["response"] == expected.text
    assert answer.json()["result"]["usage"]["completion_tokens"] == expected.usage.completion_tokens


def test_a_base_with_a_template_of_its_own_is_served_with_it_on_every_route(bases: Bases) -> None:
    account = bases.server.account()
    text = render_with_jinja(OWN_TEMPLATE, CHAT["messages"])
    tokenizer = bases.llm(FINETUNED).tokenizer
    count = len(tokenizer.encode(text, special=True, add_bos=True))
    expected = run(bases.server, FINETUNED, {"prompt": text, "raw": True, "temperature": 0, "max_tokens": 12})
    completion, usage = (expected.json()["result"][name] for name in ("response", "usage"))
    assert usage["prompt_tokens"] == count
    messages, prompt = run(bases.server, FINETUNED, CHAT), {**CHAT, "prompt": "what is the answer"}
    del prompt["messages"]
    for answer in (messages, run(bases.server, FINETUNED, prompt)):
        assert answer.json()["result"]["response"] == completion
        assert answer.json()["result"]["usage"]["prompt_tokens"] == count
    chat = httpx.post(f"{account}/ai/v1/chat/completions", json={"model": FINETUNED, **CHAT}, timeout=60).json()
    assert (chat["choices"][0]["message"]["content"], chat["usage"]["prompt_tokens"]) == (completion, count)


def test_what_a_template_refuses_is_bad_input_with_its_words(bases: Bases) -> None:
    body = {"messages": [{"role": "assistant", "content": "a"}]}
    answer = run(bases.server, FINETUNED, body)
    words = "AiError: Bad input: Error: the model's chat template refuses the messages: Begin with a question"
    assert (answer.status_code, answer.json()["errors"]) == (400, [{"code": 5006, "message": words}])
    url = f"{bases.server.account()}/ai/v1/chat/completions"
    answer = httpx.post(url, json={"model": FINETUNED, **body}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, words)


def test_an_uploaded_adapter_changes_the_completion_of_its_base(bases: Bases, tmp_path: Path) -> None:
    config = config_from_hf(tiny_config("gemma", vocab_size=512), "bfloat16")
    folder = write_peft_adapter(tmp_path / "adapter", config, rank=3, rslora=True, seed=5, model_type="gemma")
    finetunes = f"{bases.server.account()}/ai/finetunes"
    made = httpx.post(finetunes, json={"model": SEVEN_B, "name": "mine"}).json()["result"]
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        parts = {"file_name": (None, name), "file": ("blob", (folder / name).read_bytes())}
        uploaded = httpx.post(f"{finetunes}/{made['id']}/finetune-assets/", files=parts, timeout=60)
        assert uploaded.json()["success"] is True, uploaded.text
    llm = bases.llm(SEVEN_B)
    params = SamplingParams(temperature=0, max_tokens=12)
    (expected,) = llm.chat([CHAT["messages"]], params, adapters=llm.load_adapter(folder))
    (base,) = llm.chat([CHAT["messages"]], params)
    assert expected.text != base.text
    for lora in ("mine", made["id"]):
        answer = run(bases.server, SEVEN_B, CHAT | {"lora": lora}).json()
        assert answer["result"]["response"] == expected.text


def test_a_killed_engine_ends_its_stream_with_an_error_and_the_next_request_is_served(bases: Bases) -> None:
    body = CHAT | {"stream": True, "max_tokens": 600}
    url = f"{bases.server.account()}/ai/run/@local/gemma-3"
    events = []
    with httpx.stream("POST", url, json=body, timeout=60) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                if not events:
                    os.kill(last_engine_pid(bases.server.pid), signal.SIGKILL)  # Gemma 3 was started last
                events.append(line.removeprefix("data: "))
    last = json.loads(events[-1])
    assert last["finish_reason"] == "error", "and no [DONE]"
    assert "the engine process ended" in last["errors"][0]["message"]
    assert run(bases.server, "@local/gemma-3", CHAT).status_code == 200
    assert run(bases.server, SEVEN_B, CHAT).status_code == 200, "the other engines are not affected"


def last_engine_pid(server_pid: int) -> int:
    """The child of the server that was started last."""
    return max(int(child) for child in Path(f"/proc/{server_pid}/task/{server_pid}/children").read_text().split())
