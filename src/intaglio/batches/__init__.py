"""Asynchronous requests: kept in a database until they have run, and their responses for a retention time after.

Knows no prompts, models or HTTP: an `ItemWork` runs the items.
"""

from intaglio.batches.claims import ModelClaims
from intaglio.batches.records import Batch, BatchLimits, BatchState, Item, ItemKey, ItemResult, TokenCounts
from intaglio.batches.runner import BatchRunner, ItemWork
from intaglio.batches.store import BatchStore

__all__ = [
    "Batch",
    "BatchLimits",
    "BatchRunner",
    "BatchState",
    "BatchStore",
    "Item",
    "ItemKey",
    "ItemResult",
    "ItemWork",
    "ModelClaims",
    "TokenCounts",
]
