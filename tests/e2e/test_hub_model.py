"""`intaglio serve --model ID=hf:OWNER/REPO`, against a fake of the hub's HTTP API on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.helpers.checkpoints import Vocabulary, random_weights, tiny_config, write_gguf, write_hf_folder
from tests.helpers.hub import FakeHub, fake_hub
from tests.helpers.servers import LiveServer, serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_model

pytestmark = pytest.mark.slow

MODEL = "@cf/google/gemma-2b-it-lora"
SECOND = "@local/gguf"
BODY = {"prompt": "what is the answer", "temperature": 0, "max_tokens": 6}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A gated repository with a folder in two shards, and one with GGUF files in two quantizations."""
    folder, config, pieces = tmp_path / "tiny", tiny_config("gemma", vocab_size=512), tiny_pieces(512)
    write_hf_folder(folder, config, random_weights(config, 1), dtype="bfloat16", shards=2)
    write_tokenizer_model(folder / "tokenizer.model", pieces)
    (folder / "pytorch_model.bin").write_bytes(b"not fetched")
    vocabulary = Vocabulary(pieces.tokens, pieces.scores, pieces.types)
    gemma2 = tiny_config("gemma2", vocab_size=512)
    (tmp_path / "gguf").mkdir()
    for name in ("tiny-F32.gguf", "tiny-F16.gguf"):
        write_gguf(tmp_path / "gguf" / name, gemma2, random_weights(gemma2, 2), vocabulary=vocabulary)
    with fake_hub() as hub:
        hub.add_folder("acme/tiny", folder, revisions=("main", "v1"), gated=True)
        hub.add_folder("acme/tiny-GGUF", tmp_path / "gguf", architecture="gemma2")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


def run(server: LiveServer, model: str) -> str:
    answer = httpx.post(f"{server.account()}/ai/run/{model}", json=BODY, timeout=60)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["result"]["response"])


def test_models_of_the_hub_are_fetched_and_served_and_the_next_start_does_without_the_hub(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = (f"--model={MODEL}=hf:acme/tiny@v1", f"--model={SECOND}=hf:acme/tiny-GGUF:f16")
    arguments = [*models, "--kv-cache-bytes", str(1 << 24), "--cache-dir", str(tmp_path / "cache")]
    with serve(arguments, tmp_path / "data") as server:
        first = {model: run(server, model) for model in (MODEL, SECOND)}
        log = server.log.text
    assert "acme/tiny: downloading" in log and "acme/tiny: complete" in log
    assert hub.token not in log
    assert "signature=" not in log, "addresses of the storage are signed"
    assert not {"pytorch_model.bin", "tiny-F32.gguf"} & {*hub.fetched()}
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with serve(arguments, tmp_path / "data") as server:
        assert {model: run(server, model) for model in (MODEL, SECOND)} == first
        assert "HF_HUB_OFFLINE is set" in server.log.text
    assert hub.requests == []
