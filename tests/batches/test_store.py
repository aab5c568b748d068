from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from intaglio.batches import Batch, BatchState, BatchStore, ItemKey, TokenCounts
from intaglio.batches.tables import SCHEMA
from intaglio.errors import (
    BadInputError,
    BatchNotFoundError,
    BatchQueueFullError,
    DataFolderError,
    RequestTooLargeError,
)
from tests.batches.conftest import LIMITS, MODEL, Clock, requests, result, rows


def add(store: BatchStore, number: int = 2, account: str = "acc0") -> Batch:
    return store.add(account, MODEL, requests(number), b"{}")


def finish(store: BatchStore, batch: Batch, text: bytes = b"{}") -> None:
    store.finish([result(batch.id, place, text=text) for place in range(batch.num_items)])


def test_a_batch_is_queued_then_running_then_finished(store: BatchStore, clock: Clock) -> None:
    batch = add(store)
    assert store.find("acc0", batch.id) == batch
    assert (batch.state, batch.num_items, batch.num_done) == (BatchState.QUEUED, 2, 0)
    item = store.begin(ItemKey(batch.id, 1))
    assert (item.account, item.model, item.request, item.shared) == ("acc0", MODEL, b'{"prompt":"1"}', b"{}")
    assert store.find("acc0", batch.id).state is BatchState.RUNNING
    assert store.finish([result(batch.id, 1, text=b"one")]) == []
    clock.now += 7
    (finished,) = store.finish([result(batch.id, 0, text=b"zero", success=False)])
    assert finished == store.find("acc0", batch.id)
    assert (finished.state, finished.num_done, finished.num_failed) == (BatchState.FINISHED, 2, 1)
    assert finished.tokens == TokenCounts(3, 2, 1)
    assert finished.duration_s == 7
    assert store.responses("acc0", batch.id) == [b"zero", b"one"]


def test_unfinished_items_are_found_again_by_another_process(
    store: BatchStore, path: Path, database_url: str | None
) -> None:
    first, second = add(store), add(store, 3)
    store.begin(ItemKey(second.id, 0))
    store.begin(ItemKey(second.id, 1))
    store.finish([result(second.id, 1)])
    other = BatchStore(
        path, LIMITS, database_url=database_url
    )  # the first one is not closed: it may as well have been killed
    assert [batch.id for batch in other.open_batches()] == [first.id, second.id]
    assert other.open_places(first.id) == [0, 1]
    assert other.open_places(second.id) == [0, 2]
    assert [batch.id for batch in other.open_batches(after=first.number)] == [second.id]
    assert other.num_open_items() == 4
    other.close()


def test_a_batch_knows_which_models_stood_in_for_its_own(store: BatchStore) -> None:
    batch = add(store, 4)
    assert store.answered_by("acc0", batch.id) == []
    stood_in = ("@a/second", "@a/first", "@a/second", None)
    store.finish([replace(result(batch.id, place), answered_by=model) for place, model in enumerate(stood_in)])
    assert store.answered_by("acc0", batch.id) == ["@a/first", "@a/second"]
    with pytest.raises(BatchNotFoundError):
        store.answered_by("acc1", batch.id)


def test_the_first_result_of_an_item_stays(store: BatchStore) -> None:
    batch = add(store, 1)
    store.finish([result(batch.id, 0, text=b"first"), result(batch.id, 0, text=b"second")])
    assert store.finish([result(batch.id, 0, text=b"third", success=False)]) == []
    assert store.responses("acc0", batch.id) == [b"first"]
    found = store.find("acc0", batch.id)
    assert (found.num_done, found.num_failed, found.tokens.prompt) == (1, 0, 3)


def test_results_of_several_batches_are_committed_together(store: BatchStore) -> None:
    batches = [add(store, 1), add(store, 2), add(store, 1)]
    finished = store.finish([result(batch.id, 0) for batch in reversed(batches)])
    assert {batch.id for batch in finished} == {batches[0].id, batches[2].id}


def test_a_request_is_not_kept_longer_than_it_takes_to_answer_it(
    store: BatchStore, path: Path, database_url: str | None
) -> None:
    batch = store.add("acc0", MODEL, [b"something private", b"waiting"], b"{}")
    store.finish([result(batch.id, 0)])
    assert rows(path, database_url, "SELECT request FROM batch_items ORDER BY place") == [(None,), (b"waiting",)]


def test_a_batch_is_not_found_by_another_account(store: BatchStore) -> None:
    batch = add(store)
    with pytest.raises(BatchNotFoundError, match=f"^Batch {batch.id} not found$"):
        store.find("acc1", batch.id)
    with pytest.raises(BatchNotFoundError, match="not found"):
        store.responses("acc1", batch.id)


def test_results_are_kept_for_their_time_and_then_reported_as_expired(store: BatchStore, clock: Clock) -> None:
    batch, waiting = add(store), add(store)
    finish(store, batch)
    clock.now += LIMITS.retention_s - 1
    assert store.expire() == 0
    assert len(store.responses("acc0", batch.id)) == 2
    clock.now += 1
    with pytest.raises(BatchNotFoundError, match="more than 100 s ago: its results were removed"):  # swept or not
        store.find("acc0", batch.id)
    assert store.expire() == 1
    assert store.expire() == 0
    with pytest.raises(BatchNotFoundError, match="its results were removed"):
        store.find("acc0", batch.id)
    clock.now += LIMITS.retention_s
    store.expire()
    with pytest.raises(BatchNotFoundError, match="not found"):
        store.find("acc0", batch.id)
    assert store.open_places(waiting.id) == [0, 1]  # what is not finished does not expire


def test_nothing_of_an_expired_batch_is_left(
    store: BatchStore, clock: Clock, path: Path, database_url: str | None
) -> None:
    finish(store, add(store))
    for _ in range(2):
        clock.now += LIMITS.retention_s
        store.expire()
    for table in ("batches", "batch_items"):
        assert rows(path, database_url, f"SELECT count(*) FROM {table}") == [(0,)]


def test_a_batch_larger_than_the_queue_is_refused_with_the_bound(store: BatchStore) -> None:
    with pytest.raises(BadInputError, match=r"51 requests.* 50"):
        add(store, 51)
    with pytest.raises(RequestTooLargeError, match=r"1001 bytes.* 1000"):
        store.add("acc0", MODEL, [b"x" * 999], b"{}")
    assert store.open_batches() == []


def test_open_items_are_bounded_and_each_result_frees_capacity(store: BatchStore) -> None:
    first = store.add("acc0", MODEL, [b"x"] * 50, b"")
    store.add("acc0", MODEL, [b"x"] * 8, b"")
    with pytest.raises(BatchQueueFullError, match=r"58 .* 3 .* 60"):
        store.add("acc0", MODEL, [b"x"] * 3, b"")
    store.finish([result(first.id, 0)])
    store.add("acc0", MODEL, [b"x"] * 3, b"")


def test_bytes_of_results_count_until_they_are_gone(store: BatchStore, clock: Clock) -> None:
    batch = store.add("acc0", MODEL, [b"x"], b"")
    finish(store, batch, text=b"y" * 900)
    with pytest.raises(BatchQueueFullError, match=r"900 bytes.* 101 .* 1000"):
        store.add("acc0", MODEL, [b"x" * 101], b"")
    clock.now += LIMITS.retention_s
    store.expire()
    store.add("acc0", MODEL, [b"x" * 101], b"")


def test_a_database_of_a_later_version_is_refused(path: Path) -> None:
    BatchStore(path, LIMITS).close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version_num FROM batches_version").fetchall() == [(SCHEMA.head,)]
        database.execute("UPDATE batches_version SET version_num = 'second'")
        database.commit()
    with pytest.raises(DataFolderError, match=f"revision 'second', and this version supports up to {SCHEMA.head!r}"):
        BatchStore(path, LIMITS)


def test_a_file_that_is_not_a_database_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "batches.db"
    path.write_bytes(b"not a database at all, but long enough to be looked at" * 20)
    with pytest.raises(DataFolderError, match=r"batches\.db cannot be used"):
        BatchStore(path, LIMITS)


def test_a_batch_no_larger_than_the_queue_is_never_refused_for_good(path: Path) -> None:
    store = BatchStore(path, replace(LIMITS, max_open_items=5))
    with pytest.raises(BadInputError, match=r"6 requests.* 5"):  # 429 would say: come again
        add(store, 6)
    add(store, 5)
    store.close()
