"""Two thousand finetunes in one account: rows are found by an index, and nothing reads them all but a list."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa

from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.finetunes.db.rows import matches, read_finetunes, read_servable
from intaglio.finetunes.records import StoredFile
from tests.finetunes.conftest import CONFIG, VERIFICATION, WEIGHTS, SetClock

NUM_FINETUNES = 2000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with as many rows, written without syncing each."""
    path = tmp_path_factory.mktemp("thousands") / "finetunes.db"
    clock = SetClock()
    FinetuneRepository(path, clock).close()
    engine = sa.create_engine(f"sqlite:///{path}")
    verification = msgspec.json.encode(VERIFICATION).decode()
    now = "2026-01-02 03:04:05.000000"
    with engine.begin() as connection:
        for number in range(NUM_FINETUNES):
            id_, digest = f"00000000-0000-4000-8000-{number:012}", f"{number:064}"
            row = (id_, "acc", f"n{number}", "m", "", number % 2, now, now, 1, "ready", None)
            marks = ", ".join("?" * len(row))
            connection.exec_driver_sql(f"INSERT INTO finetunes VALUES ({marks})", row)
            connection.exec_driver_sql(
                "INSERT INTO finetune_versions VALUES (?, 1, ?, ?, ?, ?)",
                (id_, digest, digest, now, verification),
            )
            for file in (CONFIG, WEIGHTS):
                connection.exec_driver_sql(
                    "INSERT INTO finetune_files VALUES (?, 1, ?, ?, 3, ?)", (id_, file, f"{file[8]}{digest[1:]}", now)
                )
    engine.dispose()
    return path


def test_a_finetune_among_thousands_is_found_by_an_index(path: Path) -> None:
    plans: list[str] = []
    engine = sa.create_engine(f"sqlite:///{path}")

    def explain(
        connection: sa.Connection, _cursor: object, statement: str, values: tuple[object, ...], *_: object
    ) -> None:
        if not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
            plans.extend(row.detail for row in rows)

    sa.event.listen(engine, "before_cursor_execute", explain)
    with engine.connect() as connection:
        for name in ("n1999", "00000000-0000-4000-8000-000000001999"):
            found = read_servable(connection, matches("acc", name))
            assert found is not None
            assert read_finetunes(connection, matches("acc", name))[0].digest == found.digest
    engine.dispose()
    assert len(plans) > 8
    assert [plan for plan in plans if plan.startswith("SCAN") and "SUBQUERY" not in plan.upper()] == []


def test_lists_are_whole_and_pages_are_cut_in_the_database(path: Path) -> None:
    repository = FinetuneRepository(path)
    assert len(repository.list_account("acc")) == NUM_FINETUNES
    assert [one.name for one in repository.list_public("name", limit=2)] == ["n1", "n1001"]
    repository.close()


def test_changes_among_thousands_touch_their_own_rows(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "finetunes.db"
    copy.write_bytes(path.read_bytes())
    repository = FinetuneRepository(copy)
    found = repository.find("acc", "n7")
    files = {name: StoredFile("ab" * 32, 3, found.created_at) for name in (CONFIG, WEIGHTS)}
    repository.promote(found, files, "digest", "folder", VERIFICATION)
    everything = {f"{number:064}" for number in range(NUM_FINETUNES)}
    assert repository.find_unused([], everything)[1] == set()
    repository.delete(repository.find("acc", "n7"))
    assert repository.find_unused(["ab" * 32], everything) == ({"ab" * 32}, {f"{7:064}"})
    assert len(repository.list_account("acc")) == NUM_FINETUNES - 1
    repository.close()
