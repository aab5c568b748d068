from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from intaglio.batches.fair_queue import FairQueue
from intaglio.batches.records import ItemKey


def drained(queue: FairQueue) -> list[ItemKey]:
    keys = []
    while (queued := queue.pop()) is not None:
        keys.append(queued.key)
    return keys


def test_accounts_take_turns_and_the_older_batch_of_an_account_comes_first() -> None:
    queue = FairQueue()
    queue.add("a", "large", range(3))
    queue.add("b", "small", range(1))
    queue.add("a", "later", range(1))
    order = [("large", 0), ("small", 0), ("large", 1), ("large", 2), ("later", 0)]
    assert drained(queue) == [ItemKey(*pair) for pair in order]
    assert queue.pop() is None


def test_an_item_put_back_is_its_accounts_first_again() -> None:
    queue = FairQueue()
    queue.add("a", "batch", range(2))
    queued = queue.pop()
    assert queued is not None
    queue.put_back(queued)
    assert drained(queue) == [ItemKey("batch", 0), ItemKey("batch", 1)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4)), max_size=8), st.data())
def test_every_item_comes_out_once_whatever_is_put_back(batches: list[tuple[str, int]], data: st.DataObject) -> None:
    queue = FairQueue()
    left: Counter[str] = Counter()
    for number, (account, size) in enumerate(batches):
        queue.add(account, str(number), range(size))
        left[account] += size
    seen: Counter[ItemKey] = Counter()
    returned: set[ItemKey] = set()
    while (queued := queue.pop()) is not None:
        if queued.key not in returned and data.draw(st.booleans(), "put back"):
            returned.add(queued.key)
            queue.put_back(queued)
        else:
            seen[queued.key] += 1
            left[queued.account] -= 1
        assert len(queue) == left.total()
    assert set(seen.values()) <= {1}
    assert not any(left.values())


def test_a_small_batch_beside_a_large_one_is_done_within_twice_its_size() -> None:
    queue = FairQueue()
    queue.add("a", "large", range(100))
    queue.add("b", "small", range(5))
    assert sum(key.batch_id == "small" for key in drained(queue)[:10]) == 5
