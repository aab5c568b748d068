"""Which item runs next. Accounts alternate; within an account the oldest batch comes first, its items in their order.

So a small batch of one account never waits for the end of another account's large batch.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import NamedTuple

from intaglio.batches.records import ItemKey


class QueuedItem(NamedTuple):
    """An item and its account."""

    account: str
    key: ItemKey


class FairQueue:
    """Items that wait to run. Does not know the database or the time."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, deque[ItemKey]] = OrderedDict()  # account -> its items; the first account is next

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def add(self, account: str, batch_id: str, places: Iterable[int]) -> None:
        """Add a batch, after the account's other batches."""
        keys = [ItemKey(batch_id, place) for place in places]
        if keys:
            self._items.setdefault(account, deque()).extend(keys)

    def pop(self) -> QueuedItem | None:
        """Remove and return the next item; None if the queue is empty."""
        if not self._items:
            return None
        account, keys = next(iter(self._items.items()))
        key = keys.popleft()
        if keys:
            self._items.move_to_end(account)
        else:
            del self._items[account]
        return QueuedItem(account, key)

    def put_back(self, item: QueuedItem) -> None:
        """Return an item that could not run to the front of its account's queue."""
        self._items.setdefault(item.account, deque()).appendleft(item.key)
