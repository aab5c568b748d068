"""The page of the API at `/docs` in a real browser, reached from the playground."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.conftest import MODEL
from tests.helpers.browser import needs_browser, open_view, watched_page
from tests.helpers.servers import LiveServer

pytestmark = needs_browser


@pytest.mark.parametrize("width", [1280, 400])
def test_the_playground_leads_to_the_page_which_has_styles_and_commands(
    browser: Browser, live_server: LiveServer, width: int
) -> None:
    with watched_page(browser, live_server.url, viewport={"width": width, "height": 800}) as page:
        open_view(page, live_server.url, "chat")
        page.get_by_role("link", name="API", exact=True).click()
        page.get_by_role("link", name="Run a model", exact=True).click()
        section = page.locator("#run_model")
        expect(section).to_be_in_viewport()
        expect(section.locator("pre")).to_have_text(
            f'curl "{live_server.account()}/ai/run/{MODEL}" \\\n  -d \'{{"prompt": "Hello"}}\''
        )
        assert page.evaluate("getComputedStyle(document.querySelector('#run_model')).borderRadius") != "0px"
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than it"


def test_the_page_needs_no_script(browser: Browser, live_server: LiveServer) -> None:
    with watched_page(browser, live_server.url, java_script_enabled=False) as page:
        page.goto(f"{live_server.url}/docs/")
        expect(page.locator("#create_chat_completion")).to_be_visible()
        page.get_by_role("link", name="ChatInput", exact=True).first.click()
        expect(page.locator("#schema-ChatInput")).to_be_in_viewport()
