"""A server with a full disk refuses uploads with the reason, keeps no partial file, and recovers once space is free."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.finetunes.storage.staging import StagedFile
from intaglio.settings import Settings
from tests.api.finetunes.calls import CONFIG, create, error_of, read, stored_files, upload, upload_both

FULL = {"code": 3043, "message": "AiError: the server's disk is full; nothing was changed"}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_upload_to_a_full_disk_is_refused_with_the_reason_and_can_be_repeated(
    client: TestClient, settings: Settings, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_room(_staged: StagedFile, _chunk: bytes) -> None:
        raise OSError(number, os.strerror(number))

    create(client)
    with monkeypatch.context() as full:
        full.setattr(StagedFile, "write", no_room)
        response = upload(client, "mine", CONFIG, b"{}")
    assert response.status_code == 507
    assert error_of(response) == FULL
    assert stored_files(settings.data_path) == []
    assert read(client)["state"] == "awaiting files"
    upload_both(client, adapter_folder)
    assert read(client)["state"] == "ready"


def test_a_full_disk_under_the_database_is_reported(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_catalogue: FinetuneRepository, **_fields: object) -> None:
        with closing(sqlite3.connect(tmp_path / "small.db")) as small:
            small.execute("CREATE TABLE t (x)")
            small.execute("PRAGMA max_page_count = 4")
            small.execute("INSERT INTO t VALUES (zeroblob(100000))")

    with monkeypatch.context() as full:
        full.setattr(FinetuneRepository, "create", no_room)
        response = create(client)
    assert response.status_code == 507
    assert error_of(response) == FULL
    assert create(client).status_code == 200


def test_another_write_error_is_not_reported_as_a_full_disk(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_catalogue: FinetuneRepository, **_fields: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FinetuneRepository, "create", broken)
    assert error_of(create(client))["message"] == "AiError: internal error; the server's log has the details"
