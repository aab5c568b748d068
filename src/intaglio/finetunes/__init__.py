"""Finetunes: their owners, states and versions in a database, and their checked files in the data folder.

Knows accounts, names, files and digests. Knows no HTTP and does not check tensors itself: `lora.peft` does.

    store         everything that can be done with finetunes: called by the API; begin reading here
    names, mixes  valid names of a finetune; which adapters one request may combine
    demos         the finetunes that come with the package
    upload        pairs an uploaded file with the other one, checks and verifies the pair, stores it
    records       what is known about a finetune, and its states
    db            repository, rows, tables and their revisions
    storage       blobs, staging, garbage collection; data_lock and ownership protect a data folder
"""

from __future__ import annotations

from intaglio.finetunes.records import Candidate, Check, Finetune, FinetuneState, FinetuneVersion, StoredFile
from intaglio.finetunes.store import FinetuneStore
from intaglio.finetunes.upload import Verify

__all__ = [
    "Candidate",
    "Check",
    "Finetune",
    "FinetuneState",
    "FinetuneStore",
    "FinetuneVersion",
    "StoredFile",
    "Verify",
]
