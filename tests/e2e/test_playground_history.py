"""What the playground keeps in the browser: chats and settings, also with two tabs, a full and a forbidden storage."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.helpers.browser import (
    box,
    chat_turns,
    needs_browser,
    open_view,
    send_message,
    watched_page,
)
from tests.helpers.servers import LiveServer

pytestmark = needs_browser

FORBIDDEN = """Object.defineProperty(window, "localStorage", {
  get() { throw new DOMException("denied", "SecurityError"); },
}); Object.defineProperty(window, "sessionStorage", {
  get() { throw new DOMException("denied", "SecurityError"); },
});"""
FULL = """Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); };"""


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    with watched_page(browser, live_server.url) as page:
        open_view(page, live_server.url, "chat", lora="intaglio-triage")
        yield page


def listed(page: Page) -> list[str]:
    names: list[str] = page.locator(".chats li button:first-child").all_inner_texts()
    return names


def test_a_chat_survives_a_reload_and_is_opened_again_from_the_list(page: Page) -> None:
    box(page, "System text").fill("Sort it.")
    send_message(page, "My parcel never arrived.")
    page.reload()
    expect(page.locator("body")).to_have_attribute("data-loaded", "true")
    expect(chat_turns(page)).to_have_count(2)
    page.get_by_role("button", name="New chat").click()
    expect(chat_turns(page)).to_have_count(0)
    box(page, "System text").fill("")
    send_message(page, "I was charged twice.")
    assert listed(page) == ["I was charged twice.", "My parcel never arrived."]
    page.get_by_role("button", name="My parcel never arrived.", exact=True).click()
    expect(chat_turns(page).first.locator(".text")).to_have_text("My parcel never arrived.")
    expect(box(page, "System text")).to_have_value("Sort it.")
    page.get_by_role("button", name="Delete the chat I was charged twice.").click()
    assert listed(page) == ["My parcel never arrived."]


def test_the_page_opens_with_the_last_settings_of_the_view(page: Page, live_server: LiveServer) -> None:
    box(page, "System text").fill("Answer in one word.")
    page.goto("about:blank")
    page.goto(f"{live_server.url}/")
    expect(box(page, "System text")).to_have_value("Answer in one word.")
    expect(page.get_by_role("combobox", name="Adapter")).to_have_value("intaglio-triage")


def test_chats_are_exported_and_imported(page: Page, tmp_path: Path) -> None:
    send_message(page, "My parcel never arrived.")
    with page.expect_download() as download:
        page.get_by_role("button", name="Export").click()
    file = tmp_path / "chats.json"
    download.value.save_as(file)
    assert [chat["title"] for chat in json.loads(file.read_text())["chats"]] == ["My parcel never arrived."]
    assert json.loads(file.read_text())["settings"]["chat"]["lora"] == "intaglio-triage"
    page.get_by_role("button", name="Delete the chat").click()
    assert listed(page) == []
    page.get_by_label("File of exported chats").set_input_files(file)
    expect(page.get_by_role("status").filter(has_text="1 chat imported.")).to_be_visible()
    assert listed(page) == ["My parcel never arrived."]
    other = tmp_path / "other.json"
    other.write_text('{"chats": [1]}')
    page.get_by_label("File of exported chats").set_input_files(other)
    expect(page.get_by_role("status").filter(has_text="other.json was not exported by this page")).to_be_visible()


def test_a_second_tab_shows_the_chat_of_the_first_and_neither_loses_a_turn(page: Page) -> None:
    send_message(page, "My parcel never arrived.")
    second = page.context.new_page()
    second.goto(page.url)
    expect(chat_turns(second)).to_have_count(2)
    expect(second.locator("body")).to_have_attribute("data-loaded", "true")
    send_message(page, "I was charged twice.")
    expect(chat_turns(second)).to_have_count(4)


def test_a_chat_that_another_tab_saved_meanwhile_is_kept_beside_this_ones(page: Page) -> None:
    send_message(page, "My parcel never arrived.")
    page.evaluate("""() => {
      const key = Object.keys(localStorage).find((name) => name.startsWith("intaglio.chat."));
      const chat = JSON.parse(localStorage.getItem(key));
      localStorage.setItem(key, JSON.stringify({ ...chat, updated: chat.updated + 1000, title: "of the other tab" }));
    }""")
    send_message(page, "I was charged twice.")
    assert sorted(listed(page)) == ["My parcel never arrived.", "of the other tab"]
    expect(chat_turns(page)).to_have_count(4)


@pytest.mark.parametrize(
    ("script", "sentence"),
    [(FORBIDDEN, "this browser forbids storage"), (FULL, "this browser's storage is full")],
    ids=["forbidden", "full"],
)
def test_without_storage_the_chat_goes_on_and_says_that_it_is_not_saved(
    browser: Browser, live_server: LiveServer, script: str, sentence: str
) -> None:
    with watched_page(browser, live_server.url) as page:
        page.add_init_script(script)
        open_view(page, live_server.url, "chat", lora="intaglio-triage")
        send_message(page, "My parcel never arrived.")
        expect(page.get_by_role("status").filter(has_text=sentence)).to_be_visible()
        send_message(page, "I was charged twice.")
        expect(chat_turns(page)).to_have_count(4)
        expect(chat_turns(page).nth(3).locator(".text")).to_have_text(re.compile(r"\w"))
