"""Which database belongs to a data folder: both have the same id.

Files that no row points to are removed. So a server with the files of one database and the rows of another (an empty
one, because its URL was set for the first time) would remove every adapter.
"""

from __future__ import annotations

from pathlib import Path

from intaglio.errors import DataFolderError
from intaglio.files.atomic_write import atomic_write
from intaglio.finetunes.db.repository import FinetuneRepository

ID_FILE = "database-id"


def check_database_id(folder: Path, repository: FinetuneRepository) -> None:
    """Raise DataFolderError if the folder's adapter files are not those of the database's rows.

    A folder without adapter files and a database without versions get the same id.
    """
    identity = repository.identity()
    path = folder / ID_FILE
    if path.exists():
        if path.read_text("utf-8").strip() != identity:
            raise DataFolderError(
                f"the adapter files in {folder} belong to another database than the one given; give that one "
                "(--database-url, or none for the folder's own finetunes.db), or another --data-dir"
            )
        return
    if any((folder / "adapters").iterdir()):
        raise DataFolderError(
            f"{folder} has adapter files and no file {ID_FILE} that names their database; put {ID_FILE} back, or give "
            "another --data-dir"
        )
    if repository.has_versions():
        raise DataFolderError(
            f"the database has finetunes, and their files are not in {folder}; give the --data-dir that it was used "
            "with"
        )
    with atomic_write(path) as file:  # two servers that start together write the same
        file.write(f"{identity}\n".encode())
