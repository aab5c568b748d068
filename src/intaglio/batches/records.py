"""Records of batches: a batch is a list of requests that run asynchronously, its items are the requests.

    queued --first item started--> running --last result committed--> finished --retention over--> removed

Requests and responses are JSON bytes, which this package does not parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class BatchState(StrEnum):
    """The state of a batch until its results are removed."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"


class ItemKey(NamedTuple):
    """Identifies an item: its batch and its position in it, from 0."""

    batch_id: str
    place: int


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How much is accepted, and how long results are stored.

    max_items        items in one batch
    max_open_items   items of all batches that are not finished
    max_bytes        requests of unfinished batches and responses of finished ones, together
    retention_s      seconds until the responses of a finished batch are removed
    """

    max_items: int
    max_open_items: int
    max_bytes: int
    retention_s: float


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Tokens of one item, or of all items of a batch."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch, as of the time it was read from the database.

    number        ascending: the older batch has the smaller one
    num_done      items whose result is committed; num_failed of these failed
    duration_s    seconds from submission to the last result; None before that
    """

    number: int
    id: str
    account: str
    model: str
    state: BatchState
    num_items: int
    num_done: int
    num_failed: int
    tokens: TokenCounts
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Item:
    """One request to be run.

    request  as submitted, JSON
    shared   the submitter's settings for all items, JSON
    """

    key: ItemKey
    account: str
    model: str
    request: bytes
    shared: bytes


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The result of an item.

    response     its entry in the batch's list of responses, as JSON
    answered_by  the model that stood in for the batch's; None if none did
    """

    key: ItemKey
    response: bytes
    success: bool
    tokens: TokenCounts = TokenCounts()
    answered_by: str | None = None
