"""The catalogue's database goes away under a running server, and comes back."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from intaglio.settings import Settings
from tests.adapters.conftest import move_database
from tests.api.conftest import ACCOUNT, RUN
from tests.api.finetune_calls import create, error_of, read, upload_both

AWAY = {"code": 3043, "message": "AiError: the database of finetunes does not answer now; try again in a moment"}


def test_requests_that_need_the_database_are_told_to_come_again_and_others_are_answered(
    client: TestClient, settings: Settings, adapter_folder: Path
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    before = read(client)
    move_database(settings.data_path, "finetunes.db", "aside")
    answers = [
        client.get(f"{ACCOUNT}/ai/finetunes"),
        client.get(f"{ACCOUNT}/ai/finetunes/mine"),
        client.delete(f"{ACCOUNT}/ai/finetunes/mine"),
        client.post(RUN, json={"prompt": "Hello", "lora": "mine"}),
    ]
    assert [answer.status_code for answer in answers] == [503] * 4
    assert [error_of(answer) for answer in answers] == [AWAY] * 4
    assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)
    assert client.post(RUN, json={"prompt": "Hello"}).status_code == 200
    move_database(settings.data_path, "aside", "finetunes.db")
    assert read(client) == before
    assert client.post(RUN, json={"prompt": "Hello", "lora": "mine"}).status_code == 200
