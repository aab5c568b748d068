"""A server whose packed weights were damaged between two starts packs again and gives the same completion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.servers import serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

MODEL = "@local/tiny"
BODY = {"prompt": "what is the answer", "raw": True, "temperature": 0, "max_tokens": 12}

Damage = Callable[[bytes], bytes]

pytestmark = pytest.mark.slow


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    config = tiny_config("gemma3_text", vocab_size=512)
    folder = write_hf_folder(tmp_path / "model", config, random_weights(config, 4))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    return ["--model", f"{MODEL}={folder}", "--format", "w8", "--cache-dir", str(tmp_path / "cache")]


def completion(arguments: list[str], tmp_path: Path) -> tuple[str, str]:
    """The completion from a server that is started for this request, and the server's log."""
    with serve(arguments, tmp_path / "data") as server:
        done = httpx.post(f"{server.account()}/ai/run/{MODEL}", json=BODY, timeout=60)
        assert done.status_code == 200, done.text
        return done.json()["result"]["response"], server.log.text


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data[: len(data) // 2], id="truncated"),
        pytest.param(lambda data: data[:99] + bytes([data[99] ^ 1]) + data[100:], id="one bit changed"),
        pytest.param(lambda data: data.replace(b'"version":', b'"release":'), id="another version"),
    ],
)
def test_a_server_with_damaged_packed_weights_packs_again_and_gives_the_same_completion(
    damage: Damage, arguments: list[str], tmp_path: Path
) -> None:
    first, log = completion(arguments, tmp_path)
    assert "made again" not in log
    (path,) = (tmp_path / "cache" / "packed").glob("*.packed")
    good = path.read_bytes()
    path.write_bytes(damage(good))
    assert path.read_bytes() != good
    second, log = completion(arguments, tmp_path)
    assert second == first
    assert path.name in log
    assert path.read_bytes() == good
