"""Rows of the three tables as records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from intaglio.adapters.records import Candidate, Finetune, FinetuneState, Generation, StoredFile
from intaglio.adapters.tables import FILES, FINETUNES, GENERATIONS

_Files = Mapping[tuple[str, int], Mapping[str, StoredFile]]  # (finetune id, generation) -> name -> file


def read_finetunes(connection: sa.Connection, where: sa.ColumnElement[bool]) -> list[Finetune]:
    """The finetunes that match, oldest first. A generation's folder is a name within the adapters folder here."""
    is_current = (GENERATIONS.c.finetune_id == FINETUNES.c.id) & (GENERATIONS.c.number == FINETUNES.c.generation)
    rows = connection.execute(
        sa.select(FINETUNES, GENERATIONS.c.digest, GENERATIONS.c.folder)
        .outerjoin_from(FINETUNES, GENERATIONS, is_current)
        .where(where)
        .order_by(FINETUNES.c.created_at, FINETUNES.c.id)
    ).all()
    ids = sa.select(FINETUNES.c.id).where(where)
    files: defaultdict[tuple[str, int], dict[str, StoredFile]] = defaultdict(dict)
    for file in connection.execute(sa.select(FILES).where(FILES.c.finetune_id.in_(ids))):
        stored = StoredFile(file.sha256, file.size_bytes, _with_zone(file.uploaded_at))
        files[file.finetune_id, file.generation][file.name] = stored
    return [_finetune(row, files) for row in rows]


def utc_column(moment: datetime) -> datetime:
    """A moment as the columns have it: SQLite keeps no time zone, so all are UTC without one."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _finetune(row: sa.Row[Any], files: _Files) -> Finetune:
    state, number = FinetuneState(row.state), row.generation
    current = candidate = None
    if number > 0:
        current = Generation(number, row.digest, Path(row.folder), files.get((row.id, number), {}))
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
        current=current,
        candidate=candidate,
    )


def _with_zone(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
