"""Reads rows into records and writes records as rows. Functions that write need a transaction that writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from intaglio.finetunes.db.tables import FILES, FINETUNES, VERSIONS
from intaglio.finetunes.names import is_id
from intaglio.finetunes.records import Candidate, Finetune, FinetuneState, FinetuneVersion, StoredFile
from intaglio.request import Verification

_Files = Mapping[tuple[str, int], Mapping[str, StoredFile]]  # (finetune id, version) -> name -> file


class Servable(NamedTuple):
    """The data of a served finetune that a request needs; folder is a name within the adapters folder."""

    model: str
    digest: str
    folder: str
    verification: Verification


def matches(account: str, name_or_id: str) -> sa.ColumnElement[bool]:
    """Condition for the account's finetune of that name or id, or any account's public finetune of that id.

    One index serves it.

    Another account's public finetune is found by id only, so that publishing a name cannot hide another account's
    finetune of the same name.
    """
    if "\0" in name_or_id:  # PostgreSQL has no such text
        return sa.false()
    if is_id(name_or_id):
        return (FINETUNES.c.id == name_or_id) & ((FINETUNES.c.account == account) | FINETUNES.c.public)
    return (FINETUNES.c.account == account) & (FINETUNES.c.name == name_or_id)


def read_servable(connection: sa.Connection, where: sa.ColumnElement[bool]) -> Servable | None:
    """The current version of the finetune that matches, in one statement; None without finetune or version."""
    is_current = (VERSIONS.c.finetune_id == FINETUNES.c.id) & (VERSIONS.c.number == FINETUNES.c.version)
    columns = (FINETUNES.c.model, VERSIONS.c.digest, VERSIONS.c.folder, VERSIONS.c.verification)
    row = connection.execute(sa.select(*columns).join_from(FINETUNES, VERSIONS, is_current).where(where)).first()
    return None if row is None else Servable(row.model, row.digest, row.folder, _read_verification(row.verification))


def read_finetunes(
    connection: sa.Connection,
    where: sa.ColumnElement[bool],
    *,
    order_by: str = "created_at",
    limit: int | None = None,
) -> list[Finetune]:
    """The finetunes that match, sorted by a column, then by id; the first `limit` of them.

    A version's folder is a name within the adapters folder here.
    """
    chosen = sa.select(FINETUNES).where(where).order_by(FINETUNES.c[order_by], FINETUNES.c.id).limit(limit)
    ids = chosen.with_only_columns(FINETUNES.c.id)
    files: defaultdict[tuple[str, int], dict[str, StoredFile]] = defaultdict(dict)
    for file in connection.execute(sa.select(FILES).where(FILES.c.finetune_id.in_(ids))):
        stored = StoredFile(file.sha256, file.size_bytes, _with_zone(file.uploaded_at))
        files[file.finetune_id, file.version][file.name] = stored
    versions: defaultdict[str, list[FinetuneVersion]] = defaultdict(list)
    newest_first = sa.select(VERSIONS).where(VERSIONS.c.finetune_id.in_(ids)).order_by(VERSIONS.c.number.desc())
    for row in connection.execute(newest_first):
        its_files = files.get((row.finetune_id, row.number), {})
        versions[row.finetune_id].append(
            FinetuneVersion(row.number, row.digest, Path(row.folder), its_files, _read_verification(row.verification))
        )
    return [_finetune(row, versions.get(row.id, []), files) for row in connection.execute(chosen)]


def update_finetune(connection: sa.Connection, finetune_id: str, **values: Any) -> int:
    """Change columns of a finetune. Returns the number of changed rows: 0 if there is no such finetune."""
    return connection.execute(FINETUNES.update().where(FINETUNES.c.id == finetune_id).values(**values)).rowcount


def put_files(connection: sa.Connection, finetune_id: str, number: int, files: Mapping[str, StoredFile]) -> None:
    """Replace the files of the version, or of the candidate, with this number."""
    connection.execute(FILES.delete().where((FILES.c.finetune_id == finetune_id) & (FILES.c.version == number)))
    for name, stored in files.items():
        row = {"sha256": stored.sha256, "size_bytes": stored.size_bytes, "uploaded_at": utc_column(stored.uploaded_at)}
        connection.execute(FILES.insert().values(finetune_id=finetune_id, version=number, name=name, **row))


def put_version(connection: sa.Connection, finetune_id: str, version: FinetuneVersion, ready_at: datetime) -> None:
    """Add a version and its files. Its folder is a name within the adapters folder."""
    put_files(connection, finetune_id, version.number, version.files)
    row = {"number": version.number, "digest": version.digest, "folder": version.folder.name}
    assert version.verification is not None, "only verified versions are stored"
    verification = _verification_column(version.verification)
    connection.execute(
        VERSIONS.insert().values(finetune_id=finetune_id, ready_at=ready_at, verification=verification, **row)
    )


def put_verification(connection: sa.Connection, finetune_id: str, number: int, verification: Verification) -> None:
    """Replace a version's verification."""
    is_version = (VERSIONS.c.finetune_id == finetune_id) & (VERSIONS.c.number == number)
    connection.execute(VERSIONS.update().where(is_version).values(verification=_verification_column(verification)))


def move_candidate(connection: sa.Connection, finetune_id: str, number: int) -> None:
    """Give the files of the candidate with this number the next number: another version gets theirs."""
    is_candidate = (FILES.c.finetune_id == finetune_id) & (FILES.c.version == number)
    connection.execute(FILES.update().where(is_candidate).values(version=number + 1))


def delete_versions_before(connection: sa.Connection, finetune_id: str, first_kept: int) -> None:
    """Delete the versions with smaller numbers."""
    for table, number in ((VERSIONS, VERSIONS.c.number), (FILES, FILES.c.version)):
        connection.execute(table.delete().where((table.c.finetune_id == finetune_id) & (number < first_kept)))


def utc_column(moment: datetime) -> datetime:
    """A time as stored in the columns: in UTC without a time zone, which SQLite cannot store."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _verification_column(verification: Verification) -> str:
    return msgspec.json.encode(verification).decode()


def _read_verification(column: str) -> Verification:
    return msgspec.json.decode(column, type=Verification)


def _finetune(row: sa.Row[Any], versions: list[FinetuneVersion], files: _Files) -> Finetune:
    state, number = FinetuneState(row.state), row.version
    candidate = None
    if state is not FinetuneState.READY:
        candidate = Candidate(number + 1, state, row.reason, files.get((row.id, number + 1), {}))
    return Finetune(
        id=row.id,
        account=row.account,
        name=row.name,
        model=row.model,
        description=row.description,
        public=row.public,
        created_at=_with_zone(row.created_at),
        modified_at=_with_zone(row.modified_at),
        current=versions[0] if versions else None,
        candidate=candidate,
        earlier=tuple(versions[1:]),
    )


def _with_zone(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
