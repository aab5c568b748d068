"""Which database belongs to a data folder: that one and no other.

Files that no row points to are removed. So a server with the files of one database and the rows of another (an empty
one, say, because its URL was set for the first time) would remove every adapter there is. Both carry the same id.
"""

from __future__ import annotations

from pathlib import Path

from intaglio.errors import DataFolderError
from intaglio.files.atomic_write import atomic_write
from intaglio.finetunes.db.repository import FinetuneRepository

ID_FILE = "database-id"


def check_belonging(folder: Path, catalogue: FinetuneRepository, *, database_is_inside: bool) -> None:
    """Raise DataFolderError if the folder's adapter files are not those of the catalogue's rows.

    database_is_inside  it is the SQLite file of this folder: without an id it is from before there were ids
    """
    identity = catalogue.identity()
    path = folder / ID_FILE
    if path.exists():
        if path.read_text("utf-8").strip() != identity:
            raise DataFolderError(
                f"the adapter files in {folder} belong to another database than the one given; start with that one "
                f"(database_url, or the folder's own finetunes.db), or give another --data-dir"
            )
        return
    if not database_is_inside:
        if _has_adapters(folder):
            raise DataFolderError(
                f"{folder} has the adapter files of its own finetunes.db, and the database at database_url knows none "
                "of them; give another --data-dir for it"
            )
        if catalogue.has_versions():
            raise DataFolderError(
                f"the database at database_url has finetunes, and their files are not in {folder}; give the data_dir "
                "that it was used with"
            )
    with atomic_write(path) as file:  # of two servers that start together both write the same
        file.write(f"{identity}\n".encode())


def _has_adapters(folder: Path) -> bool:
    return (folder / "finetunes.db").exists() or any((folder / "adapters").iterdir())
