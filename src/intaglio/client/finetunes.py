"""The finetune routes of one account, as methods. They return the JSON that docs/http_api.md describes."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from intaglio.client.connection import Connection
from intaglio.errors import AdapterError, FinetuneNotFoundError
from intaglio.files.atomic_write import atomic_write

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")  # the names on the wire
_PUBLIC_PAGE_SIZE = 1000  # the server's limit for one page
_OTHER_ROUTES = ("", ".", "..", "public")  # not valid as names: with them a path would address another route

# Called with a file's name, the bytes sent so far, and its size in bytes (None: unknown).
Progress: TypeAlias = Callable[[str, int, int | None], None]


def no_progress(name: str, done: int, total: int | None) -> None:
    """Reports nothing."""


class Finetunes:
    """The operations on an account's finetunes. Every method raises ServerRefusedError or ServerUnreachableError.

    finetune  a name or an id, in every method; FinetuneNotFoundError for a text that is not valid as either
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list_own(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._connection.get("finetunes")
        return found

    def list_public(self) -> list[dict[str, Any]]:
        """The public finetunes of all accounts, and the demo adapters."""
        found: list[dict[str, Any]] = []
        while True:
            page = self._connection.get("finetunes/public", limit=_PUBLIC_PAGE_SIZE, offset=len(found))
            found += page
            if len(page) < _PUBLIC_PAGE_SIZE:
                return found

    def read(self, finetune: str) -> dict[str, Any]:
        found: dict[str, Any] = self._connection.get(_path(finetune))
        return found

    def create(self, *, name: str, model: str, description: str = "", public: bool = False) -> dict[str, Any]:
        body = {"name": name, "model": model, "description": description, "public": public}
        made: dict[str, Any] = self._connection.post("finetunes", body)
        return made

    def upload(self, finetune: str, path: Path, progress: Progress = no_progress) -> dict[str, Any]:
        """Send one of the two files, piece by piece. Returns when the server has checked and stored it.

        Raises AdapterError for a file that cannot be read.
        """
        with _open_reporting(path, progress) as file:
            response: dict[str, Any] = self._connection.post_form(
                f"{_path(finetune)}/finetune-assets",
                {"file_name": path.name},
                {"file": (path.name, file, "application/octet-stream")},
            )
        return response

    def download(self, finetune: str, file_name: str, path: Path, progress: Progress = no_progress) -> None:
        """Fetch a file to `path`, which is replaced when the whole file is there."""
        with (
            self._connection.download(f"{_path(finetune)}/finetune-assets/{file_name}") as (total, pieces),
            atomic_write(path) as file,
        ):
            for piece in pieces:
                file.write(piece)
                progress(file_name, file.tell(), total)

    def rollback(self, finetune: str, version: int | None = None) -> dict[str, Any]:
        """Make an earlier version current again, by default the previous one. Returns the finetune as `read` does."""
        query = {} if version is None else {"version": version}
        found: dict[str, Any] = self._connection.post(f"{_path(finetune)}/rollback", **query)
        return found

    def discard_upload(self, finetune: str) -> dict[str, Any]:
        """Forget an unfinished or refused upload to a finetune that has a version."""
        found: dict[str, Any] = self._connection.delete(f"{_path(finetune)}/finetune-assets")
        return found

    def delete(self, finetune: str) -> dict[str, Any]:
        gone: dict[str, Any] = self._connection.delete(_path(finetune))
        return gone


class _ReportingFile(io.FileIO):
    """A file that reports how much of it has been read."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(path, "rb")
        self._progress = progress
        self._file_name = path.name
        self._size = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(-1 if size is None else size)
        self._progress(self._file_name, self.tell(), self._size)
        return piece or b""


def _open_reporting(path: Path, progress: Progress) -> _ReportingFile:
    try:
        return _ReportingFile(path, progress)
    except OSError as error:
        raise AdapterError(f"{path} cannot be read: {error.strerror}") from error


def _path(finetune: str) -> str:
    if finetune in _OTHER_ROUTES:
        raise FinetuneNotFoundError(f"{finetune!r} is not a name or id of a finetune")
    return f"finetunes/{quote(finetune, safe='')}"
