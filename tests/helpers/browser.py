"""The playground in a headless Chromium: one browser, and pages that report script errors and foreign requests."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, Page, Request, expect, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ANSWER_TIMEOUT_MS = 60_000

needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@contextlib.contextmanager
def launch_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextlib.contextmanager
def watched_page(browser: Browser, url: str, **context_options: Any) -> Iterator[Page]:
    """A page of its own context. A script error or a request to anywhere but `url` fails the test at the end."""
    context = browser.new_context(**context_options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    faults: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:  # an HTTP error is shown
            faults.append(message.text)

    def on_page_error(error: Error) -> None:
        faults.append(str(error))

    def on_request(request: Request) -> None:
        if not request.url.startswith((url, "blob:")):
            faults.append(f"request to {request.url}")

    page.on("console", on_console)
    page.on("pageerror", on_page_error)
    page.on("request", on_request)
    yield page
    context.close()
    assert faults == []


def open_view(page: Page, url: str, view: str, **fields: str) -> None:
    """Open a view by its link, and wait until models and adapters are listed."""
    page.goto("about:blank")  # an address that differs behind its # only would not load the page again
    page.goto(f"{url}/#/{view}?{urlencode(fields)}")
    expect(page.locator("body")).to_have_attribute("data-loaded", "true")


def box(page: Page | Locator, label: str) -> Locator:
    """The field for a text or a number."""
    text, number = (page.get_by_role(role, name=label, exact=True) for role in ("textbox", "spinbutton"))
    return text.or_(number)


def send_message(page: Page, text: str) -> None:
    """Say something in the chat, and wait for the whole answer."""
    box(page, "Message").fill(text)
    box(page, "Message").press("Enter")
    expect(page.locator("#view-chat .composer .status")).to_have_text("Done.", timeout=ANSWER_TIMEOUT_MS)


def chat_turns(page: Page) -> Locator:
    return page.locator("#view-chat .turn")
