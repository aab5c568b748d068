"""The contents of a data folder, to compare before and after something that must leave nothing behind."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

_FOLDERS = ("blobs", "incoming", "adapters")


class Kept(NamedTuple):
    """files: paths below the store's folders; rows: how many each table of the database has."""

    files: frozenset[str]
    rows: dict[str, int]


def kept(data: Path) -> Kept:
    files = frozenset(
        str(path.relative_to(data)) for name in _FOLDERS for path in (data / name).rglob("*") if path.is_file()
    )
    with closing(sqlite3.connect(data / "finetunes.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}
    return Kept(files, rows)
