"""`intaglio chat` and `run` in this process, against a server with a fake model, or with a tiny model of their own."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from intaglio.api.app import create_app
from intaglio.model.config import config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import fake_state
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.commands import CommandResult, run_in_process
from tests.helpers.live_server import live_server
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

Intaglio = Callable[..., CommandResult]


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    with live_server(create_app(fake_state(settings, config_from_hf(tiny_config("gemma"))))) as address:
        yield address


@pytest.fixture
def intaglio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Intaglio:
    """The command, with what it reads from standard input; `intaglio("run", stdin="…")`."""
    monkeypatch.setenv("INTAGLIO_DATA_DIR", str(tmp_path / "data"))

    def intaglio(*words: str, stdin: str | bytes = "") -> CommandResult:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))
        return run_in_process(monkeypatch, capsys, *words)

    return intaglio


@pytest.fixture
def connected(intaglio: Intaglio, url: str, monkeypatch: pytest.MonkeyPatch) -> Intaglio:
    """`intaglio` with the server's address in the environment."""
    monkeypatch.setenv("INTAGLIO_URL", f"{url}/v1")
    return intaglio


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(folder, config, random_weights(config, 4))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    return folder
