"""Records as rows: a finetune changed, its versions and their files put, moved, trimmed.

All of it needs a transaction that writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from intaglio.finetunes.db.read_rows import utc_column, verification_column
from intaglio.finetunes.db.tables import FILES, FINETUNES, VERSIONS
from intaglio.finetunes.records import FinetuneVersion, StoredFile
from intaglio.request import Verification


def update_finetune(connection: sa.Connection, finetune_id: str, **values: Any) -> int:
    """Change columns of a finetune; the number of rows that there were."""
    return connection.execute(FINETUNES.update().where(FINETUNES.c.id == finetune_id).values(**values)).rowcount


def put_files(connection: sa.Connection, finetune_id: str, number: int, files: Mapping[str, StoredFile]) -> None:
    """The version, or the candidate with this number, has these files and no others."""
    connection.execute(FILES.delete().where((FILES.c.finetune_id == finetune_id) & (FILES.c.version == number)))
    for name, stored in files.items():
        row = {"sha256": stored.sha256, "size_bytes": stored.size_bytes, "uploaded_at": utc_column(stored.uploaded_at)}
        connection.execute(FILES.insert().values(finetune_id=finetune_id, version=number, name=name, **row))


def put_version(connection: sa.Connection, finetune_id: str, version: FinetuneVersion, ready_at: datetime) -> None:
    """A version and its files. Its folder is a name within the adapters folder."""
    put_files(connection, finetune_id, version.number, version.files)
    row = {"number": version.number, "digest": version.digest, "folder": version.folder.name}
    assert version.verification is not None, "only verified versions are stored"
    verification = verification_column(version.verification)
    connection.execute(
        VERSIONS.insert().values(finetune_id=finetune_id, ready_at=ready_at, verification=verification, **row)
    )


def put_verification(connection: sa.Connection, finetune_id: str, number: int, verification: Verification) -> None:
    """Replace a version's verification."""
    mine = (VERSIONS.c.finetune_id == finetune_id) & (VERSIONS.c.number == number)
    connection.execute(VERSIONS.update().where(mine).values(verification=verification_column(verification)))


def move_candidate(connection: sa.Connection, finetune_id: str, number: int) -> None:
    """The candidate's files get the next number, since another version takes theirs."""
    mine = (FILES.c.finetune_id == finetune_id) & (FILES.c.version == number)
    connection.execute(FILES.update().where(mine).values(version=number + 1))


def drop_before(connection: sa.Connection, finetune_id: str, first_kept: int) -> None:
    """Versions with smaller numbers are forgotten."""
    for table, number in ((VERSIONS, VERSIONS.c.number), (FILES, FILES.c.version)):
        connection.execute(table.delete().where((table.c.finetune_id == finetune_id) & (number < first_kept)))
