"""The Worker that the playground shows, with the configuration that it shows, under `wrangler dev`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

from tests.helpers.browser import launch_browser, needs_browser, watched_page
from tests.helpers.playground_code import REQUESTS, server_text, shown_code
from tests.helpers.servers import LiveServer
from tests.workers.conftest import ANSWER_DEADLINE_S, wrangler_dev
from tests.workers.worker_process import HERE

pytestmark = [pytest.mark.clients, *needs_browser]

Answer = Callable[[str, str], httpx.Response]


@pytest.fixture(scope="module")
def page(open_server: LiveServer) -> Iterator[Page]:
    with launch_browser() as browser, watched_page(browser, open_server.url) as page:
        yield page


@pytest.fixture
def answer(page: Page, open_server: LiveServer, tmp_path: Path) -> Answer:
    """The response of the Worker that the page shows for a kind of request. Its folder is as the texts are pasted."""

    def get(kind: str, stream: str) -> httpx.Response:
        fields, _ = REQUESTS[kind]
        for language, file in {"worker": "src/index.js", "wrangler": "wrangler.jsonc"}.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            text = shown_code(page, open_server.url, language, stream=stream, **fields)
            (tmp_path / file).write_text(text, encoding="utf-8")
        package = tmp_path / "node_modules" / "intaglio-workers"
        package.parent.mkdir()
        package.symlink_to(HERE.parents[1] / "workers")
        with wrangler_dev(str(tmp_path / "wrangler.jsonc"), open_server, tmp_path) as worker:
            return httpx.get(worker.url, timeout=ANSWER_DEADLINE_S)

    return get


@pytest.mark.parametrize("kind", ["raw", "messages, scaled adapter"])
def test_the_worker_gets_the_servers_completion(answer: Answer, open_server: LiveServer, kind: str) -> None:
    response = answer(kind, "false")
    assert response.json()["response"] == server_text(open_server.url, REQUESTS[kind][1])


def test_the_worker_hands_the_stream_on(answer: Answer, open_server: LiveServer) -> None:
    response = answer("raw", "true")
    assert response.headers["content-type"] == "text/event-stream"
    *events, end = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert end == "[DONE]"
    pieces = [json.loads(event)["response"] for event in events]
    assert "".join(pieces) == server_text(open_server.url, REQUESTS["raw"][1])
