"""Stored responses: found by their account, removed by age and by size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.conversations import ResponseLimits, ResponseStore, StoredResponse
from intaglio.errors import RequestTooLargeError, ResponseNotFoundError

LIMITS = ResponseLimits(retention_s=100, max_bytes=1000)


class Clock:
    """A clock that the test moves."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def of_bytes(size: int) -> StoredResponse:
    return StoredResponse(b"r" * (size - 1), b"c")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[ResponseStore]:
    store = ResponseStore(tmp_path / "responses.db", LIMITS, clock)
    yield store
    store.close()


def kept(store: ResponseStore, *ids: str) -> list[str]:
    found = []
    for response_id in ids:
        try:
            store.find("a", response_id)
        except ResponseNotFoundError:
            continue
        found.append(response_id)
    return found


def test_a_response_is_found_by_its_account_only(store: ResponseStore) -> None:
    stored = StoredResponse(b'{"id": "x"}', b"[]")
    store.add("a", "x", stored)
    assert store.find("a", "x") == stored
    for account, response_id in (("b", "x"), ("a", "y"), ("a", "x\0")):
        with pytest.raises(ResponseNotFoundError, match="not found"):
            store.find(account, response_id)


def test_a_response_survives_a_restart(store: ResponseStore, tmp_path: Path, clock: Clock) -> None:
    store.add("a", "x", of_bytes(10))
    other = ResponseStore(tmp_path / "responses.db", LIMITS, clock)
    assert kept(other, "x") == ["x"]
    other.close()


def test_a_deleted_response_is_gone(store: ResponseStore) -> None:
    store.add("a", "x", of_bytes(10))
    with pytest.raises(ResponseNotFoundError):
        store.delete("b", "x")
    store.delete("a", "x")
    assert kept(store, "x") == []
    with pytest.raises(ResponseNotFoundError):
        store.delete("a", "x")


def test_a_response_is_not_found_after_its_retention(store: ResponseStore, clock: Clock) -> None:
    store.add("a", "x", of_bytes(10))
    clock.now += 99.5
    assert kept(store, "x") == ["x"]
    clock.now += 0.5
    assert kept(store, "x") == []
    with pytest.raises(ResponseNotFoundError, match="older than 100 s"):
        store.find("a", "x")


def test_old_responses_leave_the_disk_when_one_is_added(store: ResponseStore, clock: Clock) -> None:
    store.add("a", "x", of_bytes(50))
    clock.now += 100
    store.add("a", "y", of_bytes(50))
    clock.now -= 50  # x would be found again if it were there
    assert kept(store, "x", "y") == ["y"]


def test_the_oldest_responses_make_room_for_new_ones(store: ResponseStore) -> None:
    for name in ("p", "q", "r"):
        store.add("a", name, of_bytes(300))
    assert kept(store, "p", "q", "r") == ["p", "q", "r"]
    store.add("b", "s", of_bytes(400))
    assert kept(store, "p", "q", "r") == ["q", "r"]
    store.add("a", "t", of_bytes(1000))
    assert kept(store, "p", "q", "r", "t") == ["t"]


def test_a_response_that_never_fits_is_refused_and_removes_nothing(store: ResponseStore) -> None:
    store.add("a", "x", of_bytes(10))
    with pytest.raises(RequestTooLargeError, match="1001 bytes, more than the limit of 1000"):
        store.add("a", "y", of_bytes(1001))
    assert kept(store, "x", "y") == ["x"]
