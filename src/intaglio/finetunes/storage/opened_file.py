"""A stored file that is being read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from intaglio.finetunes.records import StoredFile


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """An open file with its name and what is known about it. Whoever holds it closes `file`."""

    file: BinaryIO
    name: str
    stored: StoredFile
