"""axe looks at every view of the playground, filled as a reader would fill it: light, dark, and on a phone.

Beside that each test leaves a picture of the view in build/pictures, to be looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from intaglio.api.app import PLAYGROUND
from intaglio.settings import DEFAULT_MODEL_ID
from tests.helpers.browser import (
    ANSWER_TIMEOUT_MS,
    launch_browser,
    needs_browser,
    open_view,
    send_message,
    watched_page,
)
from tests.helpers.servers import LiveServer, serve

pytestmark = [*needs_browser, pytest.mark.clients]

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = Path(__file__).parents[2] / "build" / "pictures"
ORDER = "Please send two wool scarves to Ines Duarte in Funchal."
SCHEMA = (
    "CREATE TABLE users (id INTEGER, name TEXT, country TEXT, age INTEGER);\nList the names of all users from France."
)
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
    "dark phone": {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
}
SERIOUS = ("serious", "critical")
WIDTHS = "() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve([], tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


def fill_chat(page: Page, server: LiveServer) -> None:
    open_view(page, server.url, "chat", lora="intaglio-sql")
    send_message(page, SCHEMA)


def fill_compare(page: Page, server: LiveServer) -> None:
    open_view(page, server.url, "compare", ask=ORDER)
    ask = page.get_by_role("button", name="Ask all")
    ask.click()
    expect(ask).to_be_disabled()
    expect(ask).to_be_enabled(timeout=ANSWER_TIMEOUT_MS)


def fill_complete(page: Page, server: LiveServer) -> None:
    open_view(page, server.url, "complete", lora="intaglio-json", mode="prompt", prompt=ORDER, temperature="0")
    page.locator("#view-complete").get_by_role("button", name=re.compile("^Run")).click()
    expect(page.locator("#view-complete")).to_contain_text("finish reason", timeout=ANSWER_TIMEOUT_MS)


def fill_adapters(page: Page, server: LiveServer) -> None:
    open_view(page, server.url, "adapters")
    page.get_by_role("button", name="Details").first.click()
    expect(page.locator("#view-adapters")).to_contain_text("adapter_model.safetensors")


def fill_now(page: Page, server: LiveServer) -> None:
    body = {"prompt": ORDER, "lora": "intaglio-json", "max_tokens": 8, "temperature": 0}
    page.request.post(f"{server.account()}/ai/run/{DEFAULT_MODEL_ID}", data=body)
    open_view(page, server.url, "now")
    expect(page.get_by_role("region", name=DEFAULT_MODEL_ID)).to_contain_text("intaglio-json")
    expect(page.locator("#view-now polyline").first).to_have_attribute("points", re.compile(r"\d .*\d"))


FILL: dict[str, Callable[[Page, LiveServer], None]] = {
    "chat": fill_chat,
    "compare": fill_compare,
    "complete": fill_complete,
    "adapters": fill_adapters,
    "now": fill_now,
}


def findings(page: Page) -> list[str]:
    """What axe finds that is serious or critical: the rule, its help, and the elements."""
    page.evaluate(AXE.read_text("utf-8"))
    violations = page.evaluate("() => axe.run().then(({ violations }) => violations)")
    return [
        f"{one['id']}: {one['help']}: {', '.join(str(node['target']) for node in one['nodes'])}"
        for one in violations
        if one["impact"] in SERIOUS
    ]


def test_every_view_of_the_page_is_looked_at() -> None:
    assert set(re.findall(r'data-view="(\w+)"', (PLAYGROUND / "index.html").read_text("utf-8"))) == set(FILL)


def test_axe_finds_what_is_wrong(browser: Browser, live_server: LiveServer) -> None:
    with watched_page(browser, live_server.url) as page:
        open_view(page, live_server.url, "chat")
        page.evaluate("() => document.querySelector('main').append(document.createElement('button'))")
        assert any(found.startswith("button-name: ") for found in findings(page))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("view", FILL)
def test_nothing_serious_is_found_and_nothing_is_wider_than_the_page(
    browser: Browser, live_server: LiveServer, view: str, look: str
) -> None:
    with watched_page(browser, live_server.url, reduced_motion="reduce", **LOOKS[look]) as page:
        FILL[view](page, live_server)
        PICTURES.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=PICTURES / f"{view}-{look.replace(' ', '-')}.png", full_page=True)
        assert findings(page) == []
        content, window = page.evaluate(WIDTHS)
        assert content <= window
