"""Records as rows: a finetune changed, its generations and their files put, moved, trimmed.

All of it needs a transaction that writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from intaglio.finetunes.db.read_rows import proof_column, utc_column
from intaglio.finetunes.db.tables import FILES, FINETUNES, GENERATIONS
from intaglio.finetunes.records import Generation, StoredFile
from intaglio.request import Proof


def update_finetune(connection: sa.Connection, finetune_id: str, **values: Any) -> int:
    """Change columns of a finetune; the number of rows that there were."""
    return connection.execute(FINETUNES.update().where(FINETUNES.c.id == finetune_id).values(**values)).rowcount


def put_files(connection: sa.Connection, finetune_id: str, number: int, files: Mapping[str, StoredFile]) -> None:
    """The generation, or the candidate with this number, has these files and no others."""
    connection.execute(FILES.delete().where((FILES.c.finetune_id == finetune_id) & (FILES.c.generation == number)))
    for name, stored in files.items():
        row = {"sha256": stored.sha256, "size_bytes": stored.size_bytes, "uploaded_at": utc_column(stored.uploaded_at)}
        connection.execute(FILES.insert().values(finetune_id=finetune_id, generation=number, name=name, **row))


def put_generation(connection: sa.Connection, finetune_id: str, generation: Generation, ready_at: datetime) -> None:
    """A generation and its files. Its folder is a name within the adapters folder."""
    put_files(connection, finetune_id, generation.number, generation.files)
    row = {"number": generation.number, "digest": generation.digest, "folder": generation.folder.name}
    proof = proof_column(generation.proof)
    connection.execute(GENERATIONS.insert().values(finetune_id=finetune_id, ready_at=ready_at, proof=proof, **row))


def put_proof(connection: sa.Connection, finetune_id: str, number: int, proof: Proof) -> None:
    """Replace a generation's proof, or give it its first."""
    mine = (GENERATIONS.c.finetune_id == finetune_id) & (GENERATIONS.c.number == number)
    connection.execute(GENERATIONS.update().where(mine).values(proof=proof_column(proof)))


def move_candidate(connection: sa.Connection, finetune_id: str, number: int) -> None:
    """The candidate's files get the next number, since another generation takes theirs."""
    mine = (FILES.c.finetune_id == finetune_id) & (FILES.c.generation == number)
    connection.execute(FILES.update().where(mine).values(generation=number + 1))


def drop_before(connection: sa.Connection, finetune_id: str, first_kept: int) -> None:
    """Generations with smaller numbers are forgotten."""
    for table, number in ((GENERATIONS, GENERATIONS.c.number), (FILES, FILES.c.generation)):
        connection.execute(table.delete().where((table.c.finetune_id == finetune_id) & (number < first_kept)))
