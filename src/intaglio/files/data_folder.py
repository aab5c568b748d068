"""The data folder before a server starts: made if missing, and refused if a file in it cannot be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from intaglio.errors import DataFolderError


def make_data_folder(path: Path) -> None:
    """Create the folder if missing, readable by this user only, because batches contain prompts.

    Raises DataFolderError, with what to do, unless it and what is in it can be written: now, since a model may take
    a minute to load. Nothing in it is changed.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        entries = list(path.iterdir())
    except OSError as error:
        raise DataFolderError(f"data_dir {path} cannot be used: {error.strerror}{_advice(path)}") from error
    for entry in entries:
        if not os.access(entry, os.W_OK):
            raise DataFolderError(f"data_dir {path} cannot be used: {entry.name} cannot be written{_advice(entry)}")


def _advice(path: Path) -> str:
    """What to do, with the owner of the path, or of the nearest folder above that exists, if that is another user."""
    existing = next((one for one in (path, *path.parents) if os.path.lexists(one)), Path("/"))
    other = "name another one with --data-dir or INTAGLIO_DATA_DIR"
    try:
        owner = existing.stat().st_uid
    except OSError:  # a folder above cannot be entered
        return f"; {other}"
    if owner == os.geteuid():
        return f"; {other}"
    whose = f"{existing} belongs to uid {owner} and this server runs as uid {os.geteuid()}"
    return f"; {whose}: chown it to that, or {other}"
