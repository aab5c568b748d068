"""Publishes a folder saved by PEFT as a finetune of a running server, in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from intaglio.client.connection import Connection
from intaglio.client.finetunes import ADAPTER_FILES, Finetunes, Progress, no_progress
from intaglio.errors import FinetuneError, IntaglioError, RemoteError, ServerRefusedError, ServerUnreachableError
from intaglio.files.adapter_folder import adapter_files

_NO_SUCH_FINETUNE = 3037


def check_publishable(
    *,
    url: str,
    name: str,
    account: str | None = None,
    token: str | None = None,
    model: str | None = None,
    description: str | None = None,
    public: bool | None = None,
) -> None:
    """Raise the errors that `publish` would raise before it sends a file: a check before hours of training."""
    with Connection(url, account, token) as connection:
        if _find_unchanged(Finetunes(connection), name, model, description, public) is None:
            _choose_base(connection, model)


def publish(
    folder: str | Path,
    *,
    url: str,
    name: str,
    account: str | None = None,
    token: str | None = None,
    model: str | None = None,
    description: str | None = None,
    public: bool | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Create the finetune if it is missing, else give it a new version; return it as `Finetunes.read` does, with
    its verification.

    folder       has adapter_config.json and adapter_model.safetensors, or MLX-LM's adapters.safetensors; or it is a
                 GGUF adapter of llama.cpp, a file that ends in .gguf, of which the server makes the two files
    model        the base it was trained on; None: that of the finetune, or for a new one the only base of the server
    description  None leaves it unchanged, and so does None for `public`; both are fixed when the finetune is created

    Returns when the server has verified the adapter. If it is refused, or Ctrl-C ends the upload, the server is left as
    it was: without the new finetune, or with its current version alone.

    Raises AdapterError if the folder lacks a file, FinetuneError if
    the finetune exists with other values, ServerRefusedError with the server's reason, ServerUnreachableError.
    """
    folder = Path(folder)
    is_gguf = folder.suffix == ".gguf" and folder.is_file()
    files = {folder.name: folder} if is_gguf else adapter_files(folder)
    with Connection(url, account, token) as connection:
        finetunes = Finetunes(connection)
        found = _find_unchanged(finetunes, name, model, description, public)
        is_new = found is None
        if found is None:
            base = _choose_base(connection, model)
            found = finetunes.create(name=name, model=base, description=description or "", public=bool(public))
        with _undone_on_failure(finetunes, found, is_new=is_new):
            for file_name in files if is_gguf else _upload_order(found):
                finetunes.upload(found["id"], files[file_name], progress)
        now = finetunes.read(found["id"])
    if not is_gguf:  # of one the server has made other files
        _check_is_current(now, files)
    return now


@contextmanager
def _undone_on_failure(finetunes: Finetunes, found: dict[str, Any], *, is_new: bool) -> Iterator[None]:
    """Removes from the server what a failed upload has left there; where it cannot, the error says what is left."""
    try:
        yield
    except (IntaglioError, KeyboardInterrupt) as error:
        try:
            _undo(finetunes, found["id"], is_new=is_new)
        except RemoteError as fault:
            left = f"finetune {found['name']!r} is left with an unfinished upload: upload to it again, or delete it"
            raise ServerUnreachableError(f"{str(error) or 'interrupted'}; {left}") from fault
        raise


def _undo(finetunes: Finetunes, finetune_id: str, *, is_new: bool) -> None:
    """Delete a new finetune without a version, or discard what was uploaded to one that has a version."""
    now = finetunes.read(finetune_id)
    if now["state"] == "ready":
        finetunes.discard_upload(finetune_id)
    elif is_new:
        finetunes.delete(finetune_id)


def _find_unchanged(
    finetunes: Finetunes, name: str, model: str | None, description: str | None, public: bool | None
) -> dict[str, Any] | None:
    """The finetune, None if there is none. Raises FinetuneError if one of its given fields has another value."""
    try:
        found = finetunes.read(name)
    except ServerRefusedError as error:
        if error.code == _NO_SUCH_FINETUNE:
            return None
        raise
    wanted = {"model": model, "description": description, "public": public}
    for field, value in wanted.items():
        if value is not None and found[field] != value:
            raise FinetuneError(
                f"finetune {name!r} exists with {field} {found[field]!r}, which cannot be changed to {value!r}: "
                "delete it first, or use another name"
            )
    return found


def _choose_base(connection: Connection, model: str | None) -> str:
    """The base of a new finetune: the given one, or the only one of the server."""
    served = connection.served_models()
    if model is None and len(served) == 1:
        return served[0]
    if model is None:
        raise FinetuneError(f"the server has {len(served)} base models; name one of them: {', '.join(served)}")
    if model not in served:
        raise FinetuneError(f"the server has no weights for {model!r}; it has {', '.join(served)}")
    return model


def _upload_order(found: dict[str, Any]) -> tuple[str, ...]:
    """The file names in the order in which they must be sent.

    If the server has one file of an unfinished pair, that file is replaced first: it must not be paired with our other
    file. Otherwise the order of the last upload is kept: the server treats its last file, sent again, as a repetition.
    """
    candidate = found.get("pending", {} if found["state"] == "ready" else found)
    waiting = {file["file_name"] for file in candidate.get("files", ())}
    uploaded_at = {file["file_name"]: file["uploaded_at"] for file in found.get("files", ())}
    return tuple(sorted(ADAPTER_FILES, key=lambda name: (name not in waiting, uploaded_at.get(name, ""), name)))


def _check_is_current(now: dict[str, Any], files: Mapping[str, Path]) -> None:
    """Raise FinetuneError if another client uploaded to the same finetune meanwhile."""
    served = {file["file_name"]: file["sha256"] for file in now.get("files", ())}
    for file_name, path in files.items():
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if now["state"] != "ready" or served.get(file_name) != sha256:
            raise FinetuneError(
                f"finetune {now['name']!r} has another {file_name} than {path.parent}: another client uploaded to it "
                "meanwhile; publish again"
            )
