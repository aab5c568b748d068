"""Asynchronous requests: stored in a database until they have run; their responses are stored for a retention time.

Does not know prompts, models or HTTP: an `ItemWork` runs the items.
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
