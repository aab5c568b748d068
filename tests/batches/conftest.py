"""A store on the disk with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from intaglio.batches import BatchLimits, BatchStore, ItemKey, ItemResult, TokenCounts

MODEL = "@intaglio/fake"
LIMITS = BatchLimits(max_items=50, max_open_items=60, max_bytes=1000, retention_s=100)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def requests(number: int) -> list[bytes]:
    return [b'{"prompt":"%d"}' % place for place in range(number)]


def result(batch_id: str, place: int, *, text: bytes = b"{}", success: bool = True) -> ItemResult:
    return ItemResult(ItemKey(batch_id, place), text, success, TokenCounts(3, 2, 1) if success else TokenCounts())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "batches.db"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Where batches are kept: an SQLite file, or a new database of a real PostgreSQL."""
    url: str | None = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return url


@pytest.fixture
def store(path: Path, clock: Clock, database_url: str | None) -> Iterator[BatchStore]:
    store = BatchStore(path, LIMITS, clock, database_url=database_url)
    yield store
    store.close()


def rows(path: Path, database_url: str | None, statement: str) -> list[tuple[object, ...]]:
    """What the store's database has, asked beside the store."""
    engine = sa.create_engine(database_url or f"sqlite:///{path}")
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.exec_driver_sql(statement)]
    engine.dispose()
    return found
