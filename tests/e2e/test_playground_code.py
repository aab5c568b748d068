"""The code that the playground shows runs as it is pasted: curl by bash, `intaglio` by Python, fetch by node.

Those that need packages of others are in tests/clients/test_playground_code.py, a Worker in tests/workers.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import box, chat_turns, needs_browser, open_view, send_message, watched_page
from tests.helpers.commands import output_of
from tests.helpers.playground_code import (
    PROMPT,
    REQUESTS,
    TOOLS_AS_BODY,
    TOOLS_ON_THE_PAGE,
    compact,
    server_calls,
    server_text,
    shown_code,
    streams,
)
from tests.helpers.servers import LiveServer, serve

pytestmark = needs_browser

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="no node on this machine")
kinds = pytest.mark.parametrize("kind", REQUESTS)


@pytest.fixture(scope="module")
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    with watched_page(browser, live_server.url) as page:
        yield page


def events(text: str) -> list[dict[str, object]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@kinds
def test_curl_gets_the_same_completion(page: Page, live_server: LiveServer, kind: str) -> None:
    fields, body = REQUESTS[kind]
    code = shown_code(page, live_server.url, "curl", stream="false", **fields)
    response = json.loads(output_of(["bash", "-c", code]))["result"]["response"]
    text = response if isinstance(response, str) else compact(json.dumps(response))
    assert text == server_text(live_server.url, body)


def test_curl_streams(page: Page, live_server: LiveServer) -> None:
    fields, body = REQUESTS["raw"]
    code = shown_code(page, live_server.url, "curl", **fields)
    assert code.startswith("curl -N ")
    streamed = events(output_of(["bash", "-c", code]))
    assert "".join(str(event["response"]) for event in streamed) == server_text(live_server.url, body)


@needs_node
@streams
@kinds
def test_fetch_gets_the_same_completion(page: Page, live_server: LiveServer, kind: str, stream: str) -> None:
    fields, body = REQUESTS[kind]
    code = shown_code(page, live_server.url, "fetch", stream=stream, **fields)
    printed = output_of([str(NODE), "--input-type=module"], stdin=code)
    if kind == "schema":
        printed = printed.replace("city:", '"city":')  # node's way to print an object
    assert compact(printed.removesuffix("\n")) == server_text(live_server.url, body).removesuffix("\n")


@needs_node
def test_fetch_prints_tool_calls(page: Page, live_server: LiveServer) -> None:
    code = shown_code(page, live_server.url, "fetch", **TOOLS_ON_THE_PAGE)
    (call,) = json.loads(output_of([str(NODE), "--input-type=module"], stdin=code))
    (wanted,) = server_calls(live_server.url, TOOLS_AS_BODY)
    assert (call["name"], call["arguments"]) == (wanted["name"], wanted["arguments"])


@needs_node
@pytest.mark.parametrize("mode", ["raw", "messages"])
def test_logprobs_are_asked_for_by_curl_and_fetch(page: Page, live_server: LiveServer, mode: str) -> None:
    fields = {"mode": mode, "prompt": PROMPT, "logprobs": "3", "stream": "false", "max_tokens": "4", "temperature": "0"}
    curl = json.loads(output_of(["bash", "-c", shown_code(page, live_server.url, "curl", **fields)]))
    code = shown_code(page, live_server.url, "fetch", **fields)
    fetched = output_of([str(NODE), "--input-type=module"], stdin=code)
    told = curl["choices"][0]["logprobs"]
    assert json.loads(fetched)["logprobs"] == told
    assert len(told["tokens" if mode == "raw" else "content"]) == 4


@pytest.mark.parametrize(
    ("kind", "stream"), [*((kind, "false") for kind in REQUESTS), ("messages, scaled adapter", "true")]
)
def test_the_model_in_the_program_gets_the_servers_completion(
    page: Page, live_server: LiveServer, kind: str, stream: str
) -> None:
    fields, body = REQUESTS[kind]
    code = shown_code(page, live_server.url, "intaglio", stream=stream, **fields)
    printed = output_of([sys.executable, "-c", code])
    assert compact(printed.removesuffix("\n")) == server_text(live_server.url, body).removesuffix("\n")


def test_the_program_says_which_fields_it_does_not_have(page: Page, live_server: LiveServer) -> None:
    code = shown_code(page, live_server.url, "intaglio", **TOOLS_ON_THE_PAGE)
    assert code == "# LLM of intaglio does not have these fields: tools, tool_choice. Choose another client for them."


def test_a_chat_shows_its_next_request_as_code_that_continues_it(page: Page, live_server: LiveServer) -> None:
    open_view(page, live_server.url, "chat", lora="intaglio-triage", temperature="0", max_tokens="5", system="Sort it.")
    expect(page.locator("#chat-temperature")).to_have_value("0")
    send_message(page, "It's my parcel, it never came.")
    expect(chat_turns(page)).to_have_count(2)
    answer = chat_turns(page).nth(1).locator(".text").inner_text()
    page.get_by_text("The next answer as code").click()
    box(page, "Message").fill("I was charged twice.")
    texts = {}
    for language in ("curl", "intaglio"):
        page.locator("#chat-language").select_option(language)
        texts[language] = page.locator("#chat-code").text_content() or ""
    assert f'"content": "{answer}"' in texts["curl"]
    streamed = events(output_of(["bash", "-c", texts["curl"]]))
    by_curl = "".join(str(event["response"]) for event in streamed)
    assert output_of([sys.executable, "-c", texts["intaglio"]]).removesuffix("\n") == by_curl
    send_message(page, "I was charged twice.")
    expect(chat_turns(page)).to_have_count(4)
    assert chat_turns(page).nth(3).locator(".text").inner_text() == by_curl
    page.locator("#chat-language").select_option("curl")
    assert page.locator("#chat-code").text_content() == texts["curl"], "with nothing typed: what made the last answer"


def test_a_token_is_named_by_its_variable_and_never_shown(browser: Browser, tmp_path: Path) -> None:
    with serve(["--api-tokens", "secret-token"], tmp_path) as server:
        page = browser.new_page()
        page.goto(f"{server.url}/#/complete?prompt=One+two&max_tokens=3&temperature=0&stream=false")
        page.get_by_label("API token").fill("secret-token")
        page.get_by_role("button", name="Load models and adapters again").click()
        expect(page.locator("body")).to_have_attribute("data-loaded", "true")
        expect(page.locator("#complete-temperature")).to_have_value("0")
        texts = {}
        for language in page.locator("#language option").evaluate_all("options => options.map(one => one.value)"):
            page.locator("#language").select_option(language)
            texts[language] = page.locator("#code").text_content() or ""
        page.close()
        assert not any("secret-token" in text for text in texts.values())
        named = {language for language, text in texts.items() if "_TOKEN" in text}
        assert named == set(texts) - {"intaglio", "worker"}  # a Worker's is in its configuration
        environment = {**os.environ, "CLOUDFLARE_API_TOKEN": "secret-token"}
        assert json.loads(output_of(["bash", "-c", texts["curl"]], environment=environment))["success"] is True
        if NODE is not None:
            assert output_of([NODE, "--input-type=module"], environment=environment, stdin=texts["fetch"]).strip()
