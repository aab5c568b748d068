"""Whose item runs next. Accounts take turns; within an account the oldest batch comes first, in its own order.

So a small batch of one account never waits for the whole of a large batch of another.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import NamedTuple

from intaglio.batches.records import ItemKey


class Turn(NamedTuple):
    """The account whose turn it was, and its item."""

    account: str
    key: ItemKey


class FairQueue:
    """Items without a result that are not running. Knows no database and no clock."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, deque[ItemKey]] = OrderedDict()  # the first account is next

    def __len__(self) -> int:
        return sum(map(len, self._items.values()))

    def add(self, account: str, batch_id: str, places: Iterable[int]) -> None:
        """A batch of the account, after those it has here."""
        keys = [ItemKey(batch_id, place) for place in places]
        if keys:
            self._items.setdefault(account, deque()).extend(keys)

    def take(self) -> Turn | None:
        """The next item; None if there is none."""
        if not self._items:
            return None
        account, keys = next(iter(self._items.items()))
        key = keys.popleft()
        if keys:
            self._items.move_to_end(account)
        else:
            del self._items[account]
        return Turn(account, key)

    def put_back(self, turn: Turn) -> None:
        """An item that could not run: it is its account's first again."""
        self._items.setdefault(turn.account, deque()).appendleft(turn.key)
