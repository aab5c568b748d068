"""Finetunes: who made which, what state it is in, and where its checked files lie.

Knows accounts, names, files and digests. Knows no HTTP and never looks at a tensor itself: `lora` does the checking.
"""

from __future__ import annotations

from intaglio.adapters.intake import Prove
from intaglio.adapters.records import Candidate, Check, Finetune, FinetuneState, Generation, StoredFile
from intaglio.adapters.store import AdapterStore

__all__ = ["AdapterStore", "Candidate", "Check", "Finetune", "FinetuneState", "Generation", "Prove", "StoredFile"]
