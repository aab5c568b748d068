"""What a refused or interrupted upload leaves on the server: nothing, or what the error says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from intaglio.api.state import ServerState
from intaglio.client import Connection, Finetunes, publish
from intaglio.errors import RemoteError, ServerRefusedError, ServerUnreachableError
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import MODEL, fake_state
from tests.client.conftest import TOKEN
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config

MAX_FILE_BYTES = 200_000


@pytest.fixture
def state(tmp_path: Path, base_config: ModelConfig) -> ServerState:
    settings = Settings(data_dir=tmp_path / "data", api_tokens=(TOKEN,), max_adapter_file_bytes=MAX_FILE_BYTES)
    return fake_state(settings, base_config)


@pytest.fixture
def given(url: str) -> dict[str, Any]:
    return {"url": url, "account": "acc0", "token": TOKEN, "name": "mine", "model": MODEL}


def rank_too_high(folder: Path, base: ModelConfig) -> Path:
    return write_peft_adapter(folder, base, rank=33, model_type="gemma")


def for_another_base(folder: Path, base: ModelConfig) -> Path:
    other = tiny_config("gemma") | {"hidden_size": 2 * base.hidden_size}
    return write_peft_adapter(folder, config_from_hf(other), model_type="gemma")


def corrupted(folder: Path, base: ModelConfig) -> Path:
    write_peft_adapter(folder, base, model_type="gemma")
    (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-7])
    return folder


def config_is_no_lora(folder: Path, base: ModelConfig) -> Path:
    write_peft_adapter(folder, base, model_type="gemma")
    (folder / CONFIG_FILE).write_text('{"peft_type": "PROMPT_TUNING"}')
    return folder


def too_large(folder: Path, base: ModelConfig) -> Path:
    write_peft_adapter(folder, base, model_type="gemma")
    with (folder / WEIGHTS_FILE).open("ab") as file:
        file.write(bytes(4 * MAX_FILE_BYTES))
    return folder


class Line:
    """A line to the server that can be cut, which then also takes no new connection."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = [self._listener]
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Line:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection((self._server.hostname or "", self._server.port or 0))
                self._ends += [caller, server]
                for source, target in ((caller, server), (server, caller)):
                    self._threads.append(threading.Thread(target=self._pass_on, args=(source, target)))
                    self._threads[-1].start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                target.sendall(piece)


REFUSED = [rank_too_high, for_another_base, corrupted, config_is_no_lora, too_large]


@pytest.mark.parametrize("write", REFUSED)
def test_a_refused_upload_leaves_no_new_finetune(
    given: dict[str, Any], base_config: ModelConfig, tmp_path: Path, write: Callable[[Path, ModelConfig], Path]
) -> None:
    bad, files = write(tmp_path / "bad", base_config), stored_files(tmp_path)
    with pytest.raises(RemoteError):
        publish(bad, **given)
    with Connection(given["url"], "acc0", TOKEN) as connection:
        assert Finetunes(connection).list_own() == []
    assert stored_files(tmp_path) == files


@pytest.mark.parametrize("write", REFUSED)
def test_a_refused_upload_leaves_a_finetune_as_it_was(
    given: dict[str, Any],
    folders: list[Path],
    base_config: ModelConfig,
    tmp_path: Path,
    write: Callable[[Path, ModelConfig], Path],
) -> None:
    publish(folders[0], **given)
    with Connection(given["url"], "acc0", TOKEN) as connection:
        before, files = Finetunes(connection).read("mine"), stored_files(tmp_path)
        with pytest.raises(RemoteError):
            publish(write(tmp_path / "bad", base_config), **given)
        after = Finetunes(connection).read("mine")
    assert after.get("pending") is None
    assert {name: after[name] for name in ("version", "digest", "state", "files")} == {
        name: before[name] for name in ("version", "digest", "state", "files")
    }
    assert stored_files(tmp_path) == files


def test_ctrl_c_in_an_upload_leaves_no_new_finetune(given: dict[str, Any], folders: list[Path]) -> None:
    def interrupt(name: str, done: int, total: int | None) -> None:
        if name == WEIGHTS_FILE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(folders[0], **given, progress=interrupt)
    with Connection(given["url"], "acc0", TOKEN) as connection:
        assert Finetunes(connection).list_own() == []


def test_a_server_that_goes_away_is_said_with_what_is_left_and_the_next_upload_completes_it(
    given: dict[str, Any], folders: list[Path]
) -> None:
    with Line(given["url"]) as line:

        def cut(name: str, done: int, total: int | None) -> None:
            if name == WEIGHTS_FILE:
                line.cut()

        with pytest.raises(ServerUnreachableError, match="'mine' is left with an unfinished upload: upload"):
            publish(folders[0], **given | {"url": line.url}, progress=cut)
    assert publish(folders[0], **given)["version"] == 1


def test_only_a_finished_finetune_has_an_upload_to_discard(given: dict[str, Any], folders: list[Path]) -> None:
    with Connection(given["url"], "acc0", TOKEN) as connection:
        finetunes = Finetunes(connection)
        finetunes.create(name="mine", model=MODEL)
        with pytest.raises(ServerRefusedError, match="'mine' has no version to keep; delete it as a whole"):
            finetunes.discard_upload("mine")
        publish(folders[0], **given)
        finetunes.upload("mine", folders[1] / CONFIG_FILE)
        assert finetunes.read("mine")["pending"]
        finetunes.discard_upload("mine")
        assert "pending" not in finetunes.read("mine")
        assert finetunes.discard_upload("mine")["name"] == "mine"


def stored_files(folder: Path) -> list[str]:
    """Every file of adapters below the data folder."""
    data = folder / "data"
    return sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file() and ".db" not in path.name)
