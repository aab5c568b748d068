"""The records of a finetune, and the states of its files.

A finetune is served from its current *version*: two verified files under one digest, numbered from 1. Uploaded files
belong to the *candidate* for the next version. No request uses the candidate before it is verified; then it replaces
the current version in one step.

    awaiting files --file--> checking --good pair--> ready      (the candidate has become the current version)
          ^                     |
          |                     +-----bad-----> refused         (the bad file is deleted; a corrected one may follow)
          +--- a good file, the other missing --+

A finetune that has a version stays READY through all of this; its candidate has the state then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from intaglio.files.adapter_folder import MLX_WEIGHTS_FILE
from intaglio.lora.peft.config import CONFIG_FILE
from intaglio.lora.peft.reader import WEIGHTS_FILE
from intaglio.request import Verification

ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE)
# Names of uploads that are stored under another one.
OTHER_NAMES = {MLX_WEIGHTS_FILE: WEIGHTS_FILE}


class FinetuneState(StrEnum):
    """The state of a finetune or of its candidate. Only READY finetunes serve requests; a candidate is never READY."""

    AWAITING_FILES = "awaiting files"
    CHECKING = "checking"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One accepted file: its content's SHA-256 (hex, also its name in the blob store), size and time of upload."""

    sha256: str
    size_bytes: int
    uploaded_at: datetime


@dataclass(frozen=True, slots=True)
class Check:
    """A running check: the uploaded file, the current step, and since when."""

    file_name: str
    step: str
    started_at: datetime
    step_since: datetime


class SuggestedUse(Struct, frozen=True):
    """How an adapter is best asked: the form of the prompt that it was trained on, and limits that fit its task.

    form         messages: a chat with its turns; prompt: one turn in the model's chat form; raw: the text as it stands
    max_tokens   of a completion; None: the server's default
    temperature  None: the server's default
    """

    form: Literal["messages", "prompt", "raw"]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None


@dataclass(frozen=True, slots=True)
class FinetuneVersion:
    """Two files that were verified together.

    digest        identity of the adapter's arithmetic (hex SHA-256)
    folder        where the two files lie together under their own names
    verification  what the engine found when it ran the adapter; None for a demo adapter, whose files come verified
                  with the package and are run by the engine at its start
    """

    number: int
    digest: str
    folder: Path
    files: Mapping[str, StoredFile]
    verification: Verification | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """The files uploaded for the next version: never more than one of the two.

    reason  why the last upload was refused; None otherwise
    check   the check of an upload; None if this process runs none
    """

    number: int
    state: FinetuneState
    reason: str | None
    files: Mapping[str, StoredFile]
    check: Check | None = None

    @property
    def missing_files(self) -> tuple[str, ...]:
        """Names of the files that were not uploaded yet."""
        return tuple(name for name in ADAPTER_FILES if name not in self.files)


@dataclass(frozen=True, slots=True)
class Finetune:
    """One finetune, as of the time it was read. It has a current version, a candidate, or both.

    id              uuid4 of a user's finetune, a fixed uuid5 of a demo adapter
    model           id of the base model that it was made for
    current         the version that is served; None before the first
    candidate       the upload in progress; None if there is none
    earlier         versions before the current one whose files are kept, the newest first
    example_prompt  a prompt that shows what it does; demo adapters have one
    suggested       how it is best asked; None if that is not said
    """

    id: str
    account: str
    name: str
    model: str
    description: str
    public: bool
    created_at: datetime
    modified_at: datetime
    current: FinetuneVersion | None
    candidate: Candidate | None
    earlier: tuple[FinetuneVersion, ...] = ()
    example_prompt: str | None = None
    suggested: SuggestedUse | None = None

    @property
    def state(self) -> FinetuneState:
        """READY as soon as there is a current version; before that, the candidate's state."""
        return FinetuneState.READY if self.current is not None else self._candidate.state

    @property
    def reason(self) -> str | None:
        """Why a finetune that is not READY was refused."""
        return None if self.current is not None else self._candidate.reason

    @property
    def digest(self) -> str | None:
        return self.current.digest if self.current is not None else None

    @property
    def files(self) -> Mapping[str, StoredFile]:
        """The files of the current version; before the first version, those accepted so far."""
        return self.current.files if self.current is not None else self._candidate.files

    @property
    def pending(self) -> Candidate | None:
        """The candidate that will replace the current version, which is served meanwhile."""
        return self.candidate if self.current is not None else None

    @property
    def next_number(self) -> int:
        """The number that the next version will have."""
        return 1 if self.current is None else self.current.number + 1

    @property
    def _candidate(self) -> Candidate:
        assert self.candidate is not None, f"finetune {self.id} has neither version nor candidate"
        return self.candidate
