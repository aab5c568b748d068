"""The playground's page Chat in a real browser, against a live server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import (
    ANSWER_TIMEOUT_MS,
    box,
    chat_turns,
    needs_browser,
    open_view,
    send_message,
    watched_page,
)
from tests.helpers.servers import LiveServer, serve

pytestmark = needs_browser

ORDER = "Please send two wool scarves to Ines Duarte in Funchal."


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """A chat with an adapter that answers in few tokens."""
    with watched_page(browser, live_server.url) as page:
        open_view(page, live_server.url, "chat", lora="intaglio-triage")
        yield page


def sent_messages(page: Page, text: str) -> list[dict[str, str]]:
    with page.expect_request("**/ai/run/**") as request:
        send_message(page, text)
    messages: list[dict[str, str]] = request.value.post_data_json["messages"]
    return messages


def test_several_turns_are_asked_with_what_was_said_and_the_system_text(page: Page) -> None:
    box(page, "System text").fill("Sort the message.")
    send_message(page, "My parcel never arrived.")
    expect(chat_turns(page)).to_have_count(2)
    first = chat_turns(page).nth(1)
    expect(first.get_by_role("heading")).to_have_text("intaglio-triage")
    answer = first.locator(".text").inner_text().strip()
    assert answer
    for figure in ("tokens/s", "first text after", "prompt tokens", "completion tokens", "finish reason"):
        expect(first.locator("dt", has_text=figure)).to_be_visible()
    messages = sent_messages(page, "I was charged twice.")
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"].strip() == answer
    expect(chat_turns(page)).to_have_count(4)


def test_a_turn_is_edited_asked_again_and_deleted(page: Page) -> None:
    send_message(page, "My parcel never arrived.")
    send_message(page, "I was charged twice.")
    chat_turns(page).first.get_by_role("button", name="Edit").click()
    chat_turns(page).first.get_by_role("textbox").fill("The app keeps crashing.")
    chat_turns(page).first.get_by_role("button", name="Ask again").click()
    expect(page.locator("#view-chat .status")).to_have_text("Done.", timeout=ANSWER_TIMEOUT_MS)
    expect(chat_turns(page)).to_have_count(2)  # what came after the changed question is gone
    expect(chat_turns(page).nth(1).locator(".text")).to_contain_text("technical")
    with page.expect_request("**/ai/run/**") as request:
        chat_turns(page).nth(1).get_by_role("button", name="Regenerate").click()
    assert request.value.post_data_json["messages"] == [{"role": "user", "content": "The app keeps crashing."}]
    expect(page.locator("#view-chat .status")).to_have_text("Done.", timeout=ANSWER_TIMEOUT_MS)
    chat_turns(page).nth(1).get_by_role("button", name="Delete").click()
    expect(chat_turns(page)).to_have_count(1)
    page.get_by_role("button", name="New chat").click()
    expect(chat_turns(page)).to_have_count(0)


def test_a_turn_is_copied_as_its_text(page: Page, live_server: LiveServer) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    send_message(page, "My parcel\nnever arrived.")
    chat_turns(page).first.get_by_role("button", name="Copy").click()
    expect(chat_turns(page).first.get_by_role("button", name="Copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "My parcel\nnever arrived."


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_stopped_answer_keeps_its_text_and_has_its_figures(page: Page, live_server: LiveServer, way: str) -> None:
    open_view(page, live_server.url, "chat", model="@intaglio/gemma-3-270m", max_tokens="1500")
    box(page, "Message").fill("Once upon a time")
    box(page, "Message").press("Enter")
    expect(chat_turns(page).nth(1).locator(".text")).to_have_text(re.compile(r"\w"), timeout=ANSWER_TIMEOUT_MS)
    if way == "button":
        page.get_by_role("button", name="Stop").click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator("#view-chat .status")).to_have_text("Stopped.")
    facts = chat_turns(page).nth(1).locator(".facts")
    expect(facts).to_contain_text(re.compile(r"tokens/s\s*[\d.]+"))
    expect(facts).to_contain_text(re.compile(r"completion tokens\s*[1-9]"))
    expect(facts).to_contain_text(re.compile(r"finish reason\s*stopped"))


def test_a_pre_trained_base_says_so_until_an_adapter_is_chosen(page: Page, live_server: LiveServer) -> None:
    expect(page.locator("#view-chat .note")).to_be_hidden()
    open_view(page, live_server.url, "chat", model="@intaglio/gemma-3-270m")
    expect(page.locator("#view-chat .note")).to_contain_text("pre-trained")
    page.get_by_role("combobox", name="Adapter").select_option("intaglio-json")
    expect(page.locator("#view-chat .note")).to_be_hidden()
    page.locator("#view-chat summary", has_text="Sampling").click()
    expect(box(page, "temperature")).to_have_value("0")  # the adapter's task has one right result
    expect(page.locator("#chat-temperature-bounds")).to_have_text("0 to 5")
    expect(box(page, "presence_penalty")).to_have_attribute("placeholder", "off")


def test_an_empty_message_is_not_sent_and_a_link_restores_the_settings(page: Page) -> None:
    box(page, "Message").fill("  \n ")
    box(page, "Message").press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Type a message first.")
    expect(chat_turns(page)).to_have_count(0)
    box(page, "System text").fill("Be brief & <b>kind</b>.")
    expect(page).to_have_url(re.compile("brief"))
    page.reload()
    expect(box(page, "System text")).to_have_value("Be brief & <b>kind</b>.")
    expect(page.get_by_role("combobox", name="Adapter")).to_have_value("intaglio-triage")


def test_a_server_that_goes_away_in_a_stream_leaves_the_text_and_says_so(browser: Browser, tmp_path: Path) -> None:
    with serve([], tmp_path) as server, watched_page(browser, server.url) as page:
        open_view(page, server.url, "chat", model="@intaglio/gemma-3-270m", max_tokens="1500")
        box(page, "Message").fill("Once upon a time")
        box(page, "Message").press("Enter")
        text = chat_turns(page).nth(1).locator(".text")
        expect(text).to_have_text(re.compile(r"\w"), timeout=ANSWER_TIMEOUT_MS)
        os.kill(server.pid, signal.SIGKILL)
        expect(chat_turns(page).nth(1).get_by_role("alert")).to_contain_text(re.compile("server still running|was cut"))
        expect(text).to_have_text(re.compile(r"\w"))
        expect(chat_turns(page).first.locator(".text")).to_have_text("Once upon a time")
        expect(chat_turns(page).nth(1).get_by_role("button", name="Regenerate")).to_be_visible()


def test_a_token_is_asked_for_and_everything_loads_once_it_is_typed(browser: Browser, tmp_path: Path) -> None:
    with serve(["--api-tokens", "secret-token"], tmp_path) as server, watched_page(browser, server.url) as page:
        page.goto(server.url)
        expect(box(page, "API token")).to_be_focused()
        expect(page.locator("#connection-error")).to_contain_text("no API token")
        page.keyboard.type("secret-token")
        page.keyboard.press("Enter")
        expect(page.locator("body")).to_have_attribute("data-loaded", "true")
        expect(page.locator("#connection")).not_to_have_attribute("open", "")
        page.get_by_role("combobox", name="Adapter").select_option("intaglio-triage")
        send_message(page, "My parcel never arrived.")
