"""The code that the playground shows for packages of others runs as it is pasted, each in the package's environment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.clients.clients import ENVIRONMENTS, NODE_BIN, NODE_FOLDER
from tests.helpers.browser import launch_browser, needs_browser, watched_page
from tests.helpers.commands import output_of
from tests.helpers.playground_code import (
    REQUESTS,
    TOOLS_AS_BODY,
    TOOLS_ON_THE_PAGE,
    compact,
    server_calls,
    server_text,
    shown_code,
    streams,
)
from tests.helpers.servers import LiveServer

pytestmark = needs_browser

PYTHON = {"cloudflare": "cloudflare-5", "python": "openai"}  # language on the page -> environment
LANGUAGES = (*PYTHON, "javascript", "aisdk")

languages = pytest.mark.parametrize("language", LANGUAGES)


@pytest.fixture(scope="module")
def page(live_server: LiveServer) -> Iterator[Page]:
    with launch_browser() as browser, watched_page(browser, live_server.url) as page:
        yield page


def output_in(language: str, code: str, folder: Path) -> str:
    """What the code prints. The https proxy does not exist, so a client that connects to its vendor fails."""
    if language in PYTHON:
        command = [str(ENVIRONMENTS / PYTHON[language] / "bin" / "python"), "code.py"]
    else:
        command = [str(NODE_BIN / "node"), "code.mjs"]
        (folder / "node_modules").symlink_to(NODE_FOLDER / "node_modules")
    (folder / command[1]).write_text(code, encoding="utf-8")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8", "HTTPS_PROXY": "http://127.0.0.1:9"}
    return output_of(command, folder=folder, environment=environment)


@streams
@languages
@pytest.mark.parametrize("kind", REQUESTS)
def test_it_gets_the_servers_completion(
    page: Page, live_server: LiveServer, tmp_path: Path, kind: str, language: str, stream: str
) -> None:
    fields, body = REQUESTS[kind]
    code = shown_code(page, live_server.url, language, stream=stream, **fields)
    printed = compact(output_in(language, code, tmp_path).removesuffix("\n"))
    assert printed == server_text(live_server.url, body).removesuffix("\n")


@streams
@languages
def test_it_prints_the_tool_calls(
    page: Page, live_server: LiveServer, tmp_path: Path, language: str, stream: str
) -> None:
    code = shown_code(page, live_server.url, language, stream=stream, **TOOLS_ON_THE_PAGE)
    printed = output_in(language, code, tmp_path)
    (call,) = server_calls(live_server.url, TOOLS_AS_BODY)
    assert call["name"] in printed
    for value in call["arguments"].values():
        assert str(value) in printed


@pytest.mark.parametrize("mode", ["raw", "messages"])
@pytest.mark.parametrize("language", ["python", "javascript"])
def test_it_prints_logprobs(page: Page, live_server: LiveServer, tmp_path: Path, language: str, mode: str) -> None:
    fields = {"mode": mode, "prompt": "One, two,", "logprobs": "2", "max_tokens": "3", "temperature": "0"}
    printed = output_in(language, shown_code(page, live_server.url, language, stream="false", **fields), tmp_path)
    told = printed.splitlines()[-1]
    assert "top_logprobs" in told
    if language == "javascript":
        assert len(json.loads(told)["tokens" if mode == "raw" else "content"]) == 3
