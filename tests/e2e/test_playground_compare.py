"""The playground's page Compare in a real browser, against a live server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.helpers.browser import ANSWER_TIMEOUT_MS, box, needs_browser, open_view, watched_page
from tests.helpers.servers import LiveServer, serve

pytestmark = needs_browser

ORDER = "Please send two wool scarves to Ines Duarte in Funchal."
DEMOS = ("intaglio-chat", "intaglio-json", "intaglio-sql", "intaglio-triage")


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    with watched_page(browser, live_server.url) as page:
        open_view(page, live_server.url, "compare")
        yield page


def column(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def ask_all(page: Page) -> None:
    page.get_by_role("button", name="Ask all").click()
    expect(page.get_by_role("button", name="Ask all")).to_be_disabled()
    expect(page.get_by_role("button", name="Ask all")).to_be_enabled(timeout=ANSWER_TIMEOUT_MS)


def test_the_base_and_every_adapter_answer_one_question_side_by_side(page: Page) -> None:
    box(page, "Question").fill(ORDER)
    bodies = []
    page.on("request", lambda request: bodies.append(request.post_data_json) if "/ai/run/" in request.url else None)
    ask_all(page)
    assert [body.get("lora") for body in bodies] == [None, *DEMOS]
    assert {body["prompt"] for body in bodies} == {ORDER}
    expect(column(page, "intaglio-json").locator(".output")).to_contain_text("Ines Duarte")
    for name in ("base", *DEMOS):
        expect(column(page, name).locator(".facts")).to_contain_text(re.compile(r"tokens/s\s*[\d.]+"))
        expect(column(page, name).locator(".output")).to_have_text(re.compile(r"\S"))
    expect(page.locator("#view-compare .status")).to_contain_text("tokens/s together")
    expect(column(page, "intaglio-json")).to_contain_text("Verified: ")


def asked_bodies(page: Page) -> dict[str, dict[str, Any]]:
    """The body that each column sent, by the adapter's name; the base's is under ""."""
    found: list[dict[str, Any]] = []
    page.on("request", lambda request: found.append(request.post_data_json) if "/ai/run/" in request.url else None)
    ask_all(page)
    return {body.get("lora", ""): body for body in found}


def test_an_adapter_is_asked_as_its_card_suggests_where_nothing_was_typed(page: Page) -> None:
    box(page, "Question").fill("The app keeps crashing.")
    bodies = asked_bodies(page)
    assert {name: (body["max_tokens"], body["temperature"], "raw" in body) for name, body in bodies.items()} == {
        "": (96, 0, False),
        "intaglio-chat": (128, 0, False),
        "intaglio-json": (96, 0, False),
        "intaglio-sql": (64, 0, False),
        "intaglio-triage": (8, 0, False),
    }


def test_what_is_typed_counts_before_a_card_and_is_kept_in_the_link(page: Page, live_server: LiveServer) -> None:
    open_view(page, live_server.url, "compare", ask="The app", max_tokens="3", form="raw")
    bodies = asked_bodies(page)
    assert {(body["max_tokens"], body["raw"]) for body in bodies.values()} == {(3, True)}
    expect(page).to_have_url(re.compile(r"form=raw.*max_tokens=3"))
    assert "temperature" not in page.url


def raw_sql(route: Route) -> None:
    """The list of adapters as if a card of another form were among them."""
    content = route.fetch().json()
    for finetune in content["result"]:
        if finetune["name"] == "intaglio-sql":
            finetune["suggested"]["form"] = "raw"
    route.fulfill(json=content)


def test_an_adapter_whose_card_says_raw_gets_the_text_as_it_stands(page: Page, live_server: LiveServer) -> None:
    page.route("**/finetunes/public*", raw_sql)
    open_view(page, live_server.url, "compare", ask="SELECT", max_tokens="3", **{"with": "*,intaglio-sql"})
    bodies = asked_bodies(page)
    assert bodies["intaglio-sql"]["raw"] is True
    assert "raw" not in bodies[""]
    open_view(page, live_server.url, "chat", lora="intaglio-sql")
    expect(page.locator("#view-chat .note")).to_contain_text("raw text, not turns of a chat")


def test_a_server_that_goes_away_in_the_middle_leaves_every_columns_text(browser: Browser, tmp_path: Path) -> None:
    with serve([], tmp_path) as server, watched_page(browser, server.url) as page:
        open_view(page, server.url, "compare", ask="Once", max_tokens="1500", **{"with": "*,intaglio-json:0"})
        page.get_by_role("button", name="Ask all").click()
        for name in ("base", "intaglio-json"):
            expect(column(page, name).locator(".output")).to_have_text(re.compile(r"\w"), timeout=ANSWER_TIMEOUT_MS)
        os.kill(server.pid, signal.SIGKILL)
        for name in ("base", "intaglio-json"):
            expect(column(page, name).get_by_role("alert")).to_contain_text(re.compile("server still running|was cut"))
            expect(column(page, name).locator(".output")).to_have_text(re.compile(r"\w"))
        expect(page.get_by_role("button", name="Ask all")).to_be_enabled()


def test_the_columns_stream_together_and_esc_stops_all_of_them(page: Page, live_server: LiveServer) -> None:
    open_view(
        page, live_server.url, "compare", form="raw", ask="Once upon a time", max_tokens="1500",
        **{"with": "*,intaglio-json:0.01"},
    )  # fmt: skip
    page.get_by_role("button", name="Ask all").click()
    for name in ("base", "intaglio-json"):
        expect(column(page, name).locator(".output")).to_have_text(re.compile(r"\w"), timeout=ANSWER_TIMEOUT_MS)
        expect(column(page, name).locator(".output")).to_have_attribute("aria-busy", "true")
    page.keyboard.press("Escape")
    for name in ("base", "intaglio-json"):
        expect(column(page, name).locator(".facts")).to_contain_text(re.compile(r"finish reason\s*stopped"))
        expect(column(page, name).locator(".facts")).to_contain_text(re.compile(r"completion tokens\s*[1-9]"))


def test_columns_and_scales_are_chosen_and_kept_in_the_link(page: Page) -> None:
    page.get_by_role("checkbox", name="base", exact=True).uncheck()
    for name in ("intaglio-chat", "intaglio-sql"):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    box(page, "Scale of intaglio-json").fill("0.5")
    box(page, "Question").fill("2 & <b>3</b>?")
    expect(page.locator("article.column")).to_have_count(2)
    expect(page).to_have_url(re.compile("ask="))
    page.reload()
    expect(page.locator("body")).to_have_attribute("data-loaded", "true")
    expect(page.locator("article.column")).to_have_count(2)
    expect(box(page, "Question")).to_have_value("2 & <b>3</b>?")
    expect(box(page, "Scale of intaglio-json")).to_have_value("0.5")
    with page.expect_request(
        lambda request: "/ai/run/" in request.url and "intaglio-json" in (request.post_data or "")
    ) as request:
        ask_all(page)
    assert request.value.post_data_json["lora"] == [{"name": "intaglio-json", "scale": 0.5}]


def test_a_column_that_is_refused_says_why_and_the_others_answer(page: Page, live_server: LiveServer) -> None:
    open_view(page, live_server.url, "compare", ask=ORDER, max_tokens="3", **{"with": "no-such-adapter,intaglio-json"})
    ask_all(page)
    expect(column(page, "no-such-adapter").get_by_role("alert")).to_contain_text("Error 3037")
    expect(column(page, "no-such-adapter").locator(".output")).to_have_text("")
    expect(column(page, "intaglio-json").locator(".output")).to_have_text(re.compile(r"\S"))


def test_an_adapter_that_changes_nothing_is_marked(page: Page, live_server: LiveServer) -> None:
    open_view(
        page, live_server.url, "compare", form="raw", ask="The sky is", max_tokens="4", **{"with": "*,intaglio-json:0"}
    )
    ask_all(page)
    expect(column(page, "intaglio-json")).to_contain_text("The same text as the base.")


def test_nothing_is_asked_without_a_question_or_without_a_column(page: Page) -> None:
    page.get_by_role("button", name="Ask all").click()
    expect(page.get_by_role("alert")).to_have_text("Type a question first.")
    expect(box(page, "Question")).to_be_focused()
    box(page, "Question").fill("Hello")
    for name in ("base", *DEMOS):
        page.get_by_role("checkbox", name=name, exact=True).uncheck()
    page.get_by_role("button", name="Ask all").click()
    expect(page.get_by_role("alert")).to_have_text("Choose the base or an adapter first.")
