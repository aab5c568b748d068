"""What the catalogue knows about one finetune, and the states a finetune goes through.

awaiting files --file--> checking --good--> ready            (final: its files cannot be replaced)
      ^                     |
      |                     +------bad----> refused          (the bad file is not kept; a corrected one may follow)
      +--------- a good file, the other still missing -------+
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from intaglio.lora.peft import WEIGHTS_FILE
from intaglio.lora.peft_config import CONFIG_FILE

ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)


class FinetuneState(StrEnum):
    """Where a finetune stands. Only READY ones answer requests."""

    AWAITING_FILES = "awaiting files"
    CHECKING = "checking"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One accepted file: its content's SHA-256 (hex, also its name in the blob store) and its size in bytes."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Finetune:
    """One finetune as it stood when it was read.

    id          uuid4 of a user's finetune, a fixed uuid5 of a demo adapter
    model       id of the base model that it was made for
    reason      why the last upload was refused; None otherwise
    digest      identity of the adapter's arithmetic (hex SHA-256); set when READY
    folder      where adapter_config.json and adapter_model.safetensors lie together; set when READY
    files       accepted files by name
    example_prompt  a prompt that shows what it does; demo adapters have one
    """

    id: str
    account: str
    name: str
    model: str
    description: str
    public: bool
    created_at: datetime
    modified_at: datetime
    state: FinetuneState
    reason: str | None
    digest: str | None
    folder: Path | None
    files: Mapping[str, StoredFile]
    example_prompt: str | None = None

    @property
    def missing_files(self) -> tuple[str, ...]:
        """Names of the files that a finetune needs and this one lacks."""
        return tuple(name for name in ADAPTER_FILES if name not in self.files)
