"""The playground's page Now in a real browser, against a live server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from intaglio.settings import DEFAULT_MODEL_ID
from tests.helpers.browser import needs_browser, watched_page
from tests.helpers.servers import LiveServer

pytestmark = needs_browser

RATES = """async () => {
  const { Rates, hitRate, linePoints } = await import("/rates.js");
  const read = (prompt, cached, completion) =>
    ({ computed_prompt_tokens: prompt, cached_prompt_tokens: cached, completion_tokens: completion });
  const rates = new Rates();
  const before = rates.latest("completion");
  rates.add(read(100, 0, 10), 5);
  rates.add(read(160, 40, 30), 7);
  const between = [rates.latest("prompt"), rates.latest("completion")];
  rates.add(read(0, 0, 0), 8);  // an engine that was started again
  rates.add(read(5, 5, 1), 9);
  return { before, between, after: rates.history("completion"), hits: hitRate(read(60, 20, 1)),
           none: hitRate(read(0, 0, 0)), line: linePoints([0, 2, 4], 59, 10) };
}"""


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """What a browser shows that opens /status."""
    with watched_page(browser, live_server.url) as page:
        page.goto(f"{live_server.url}/status")
        yield page


def card(page: Page) -> Locator:
    return page.get_by_role("region", name=DEFAULT_MODEL_ID)


def test_a_browser_that_opens_status_sees_the_engines_numbers_change(page: Page, live_server: LiveServer) -> None:
    expect(page).to_have_url(f"{live_server.url}/#/now")
    expect(card(page)).to_contain_text("completion tokens/s")
    before = re.search(r"steps(\d+)", card(page).text_content() or "")
    assert before is not None
    body = {"prompt": "I want my money back.", "lora": "intaglio-triage", "max_tokens": 4, "temperature": 0}
    page.request.post(f"{live_server.account()}/ai/run/{DEFAULT_MODEL_ID}", data=body)
    expect(card(page)).not_to_contain_text(f"steps{before[1]}")
    expect(card(page).get_by_role("list", name="In the batch and in memory")).to_contain_text("intaglio-triage")


def test_a_server_that_is_away_is_said_and_asked_again(page: Page) -> None:
    expect(card(page)).to_be_visible()
    page.route("**/status", lambda route: route.abort())
    expect(page.locator("#view-now").get_by_role("alert")).to_contain_text("does not answer")
    expect(card(page)).to_be_visible()
    page.unroute("**/status")
    expect(page.locator("#view-now").get_by_role("alert")).to_be_hidden()


def test_nothing_is_read_while_another_view_is_shown(page: Page) -> None:
    page.clock.install()
    page.reload()
    expect(card(page)).to_be_visible()
    with page.expect_request("**/status"):
        page.clock.run_for(1500)
    page.get_by_role("link", name="Chat").click()
    expect(page.locator("#view-chat")).to_be_visible()
    page.on("request", lambda request: pytest.fail(request.url) if request.url.endswith("/status") else None)
    page.clock.run_for(10_000)


def test_rates_come_from_two_reads_and_begin_anew_with_the_engine(page: Page) -> None:
    assert page.evaluate(RATES) == {
        "before": None,
        "between": [30, 10],
        "after": [1],
        "hits": 0.25,
        "none": None,
        "line": "57.0,10.0 58.0,5.0 59.0,0.0",
    }
