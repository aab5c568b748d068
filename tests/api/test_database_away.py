"""The database of finetunes goes away under a running server, and comes back."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.settings import Settings
from tests.api.conftest import ACCOUNT, RUN
from tests.api.finetunes.calls import create, error_of, read, upload_both
from tests.finetunes.conftest import move_database
from tests.helpers.paused_check import DEADLINE_S, in_thread

AWAY = {"code": 3043, "message": "AiError: the database of finetunes does not respond; try again in a moment"}


def test_requests_that_need_the_database_are_503_and_others_are_served(
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


def test_requests_without_adapters_do_not_wait_behind_those_that_wait_for_the_database(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, back = threading.Event(), threading.Event()

    def standing_still(*_: object) -> None:
        asked.set()
        assert back.wait(DEADLINE_S)

    def leave_threads(number: int | None) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(number))

    monkeypatch.setattr(FinetuneRepository, "find_servable", standing_still)
    assert client.portal is not None
    client.portal.call(leave_threads, 1)
    waiting = in_thread(lambda: client.post(RUN, json={"prompt": "Hello", "lora": "mine"}))
    try:
        assert asked.wait(DEADLINE_S)
        answer = in_thread(lambda: client.post(RUN, json={"prompt": "Hello"})).result(DEADLINE_S)
        assert answer.status_code == 200
        assert not waiting.done()
    finally:
        back.set()
        client.portal.call(leave_threads, None)  # other tests have the same loop
    assert waiting.result(DEADLINE_S).status_code == 404
