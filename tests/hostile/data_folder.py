"""The contents of a data folder, to compare before and after an action that must not change it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

_FOLDERS = ("blobs", "incoming", "adapters")


class Contents(NamedTuple):
    """files: paths below the store's folders; rows: number of rows of each table of the database."""

    files: frozenset[str]
    rows: dict[str, int]


def folder_contents(data: Path) -> Contents:
    files = frozenset(
        str(path.relative_to(data)) for name in _FOLDERS for path in (data / name).rglob("*") if path.is_file()
    )
    with closing(sqlite3.connect(data / "finetunes.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = {table: database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}
    return Contents(files, rows)
