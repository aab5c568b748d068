"""Complete's fields of the model's schema, its editors, and the probabilities of an answer's tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import MODEL
from tests.helpers.browser import ANSWER_TIMEOUT_MS, box, needs_browser, open_view, watched_page
from tests.helpers.playground_code import SCHEMA, TOOLS_ON_THE_PAGE
from tests.helpers.servers import LiveServer

pytestmark = needs_browser


@pytest.fixture
def page(browser: Browser, live_server: LiveServer) -> Iterator[Page]:
    """Complete with the fields of its model."""
    with watched_page(browser, live_server.url) as page:
        open_complete(page, live_server)
        yield page


def open_complete(page: Page, server: LiveServer, **fields: str) -> None:
    open_view(page, server.url, "complete", **fields)
    expect(page.locator("#complete-temperature")).to_be_visible()


def run(page: Page) -> str:
    """Press Run; return the text of the finished completion."""
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#status")).to_have_text("Done.", timeout=ANSWER_TIMEOUT_MS)
    return page.locator("#completion").inner_text()


def test_each_field_of_the_served_schema_is_on_the_page_with_its_bounds_and_a_label(
    page: Page, live_server: LiveServer
) -> None:
    address = f"{live_server.url}/client/v4/accounts/local/ai/models/schema"
    schema = httpx.get(address, params={"model": MODEL}).json()["result"]["input"]
    declared = {name: field for form in schema["oneOf"] for name, field in form["properties"].items()}
    page.locator("#editors").evaluate(
        "card => { for (const one of [card, ...card.querySelectorAll('details')]) one.open = true; }"
    )
    for name in declared.keys() - {"prompt", "messages", "raw", "stream", "lora"}:
        field = page.get_by_label(name, exact=True).locator("visible=true")
        expect(field).to_have_attribute("id", f"complete-{name}")
        for bound, attribute in (("minimum", "min"), ("maximum", "max")):
            if declared[name].get("type") in ("integer", "number") and bound in declared[name]:
                expect(field).to_have_attribute(attribute, str(declared[name][bound]))


def test_a_value_out_of_bounds_is_told_at_its_field_and_not_sent(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if "/run/" in request.url else None)
    box(page, "temperature").fill("9")
    expect(page.locator("#complete-temperature-problem")).to_have_text("temperature is 9, more than 5.")
    expect(box(page, "temperature")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#error")).to_have_text("temperature is 9, more than 5.")
    expect(box(page, "temperature")).to_be_focused()
    box(page, "temperature").press_sequentially("e")  # the browser lets it be typed, and knows no value of it
    expect(page.locator("#complete-temperature-problem")).to_have_text('temperature is "not a number", not a number.')
    box(page, "temperature").fill("0")
    expect(page.locator("#complete-temperature-problem")).to_have_text("")
    assert sent == []
    run(page)
    assert len(sent) == 1


def test_a_schema_is_inserted_edited_and_its_answer_laid_out(page: Page) -> None:
    page.locator("#editors > summary").click()
    page.get_by_role("button", name="Insert an example of response_format").click()
    editor = box(page, "response_format")
    assert json.loads(editor.input_value())["type"] == "json_schema"
    editor.fill('{"type": "json_schema",\n "json_schema": {"type": "object",}}')
    page.get_by_role("button", name="Run").click()
    fault = "response_format, line 2, column 35: a key in double quotes is expected, not }."
    expect(page.locator("#error")).to_have_text(fault)
    expect(editor).to_be_focused()
    editor.fill(json.dumps({"type": "json_schema", "json_schema": SCHEMA}))
    box(page, "max_tokens").fill("40")
    answer = run(page)
    assert re.fullmatch(r'\{\n  "city": "(Oslo|Rome)"\n\}', answer)


def test_tool_calls_are_shown_and_the_rendered_prompt_has_the_tools(page: Page, live_server: LiveServer) -> None:
    open_complete(page, live_server, **TOOLS_ON_THE_PAGE)
    expect(page.locator("#editors")).to_have_attribute("open", "")  # a link opens what it fills
    for asked in ("stream", "logprobs"):
        page.get_by_label(asked, exact=True).click()
        run(page)
        call = page.get_by_role("list", name="Tool calls").get_by_role("listitem")
        expect(call.locator("strong")).to_have_text("get_weather")
        assert json.loads(call.locator("pre").inner_text()).keys() == {"city"}
        counted = page.locator("#facts div", has_text="prompt tokens").locator("dd").inner_text().split()[0]
        expect(page.locator("#reads-count")).to_have_text(re.compile(f"^{counted} tokens "))


@pytest.mark.parametrize("form", ["raw", "messages"])
@pytest.mark.parametrize("stream", ["true", "false"])
def test_the_tokens_of_an_answer_show_their_alternatives_by_mouse_and_keyboard(
    page: Page, live_server: LiveServer, form: str, stream: str
) -> None:
    fields = {"mode": form, "prompt": "One, two, three,", "max_tokens": "5", "temperature": "0", "logprobs": "3"}
    open_complete(page, live_server, stream=stream, **fields)
    answer = run(page)
    tokens = page.locator("#tokens button")
    expect(tokens).to_have_count(5)
    shown = "".join(text.replace("·", " ").replace("↵", "\n") for text in tokens.all_inner_texts())
    assert shown.split() == answer.split()
    rows = page.locator("#alternatives tbody tr")
    tokens.nth(2).click()
    expect(page.locator("#alternatives caption")).to_have_text("Token 3")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("(taken)")  # at temperature 0 the likeliest is taken
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(3)).to_be_focused()
    expect(page.locator("#alternatives caption")).to_have_text("Token 4")
    page.keyboard.press("End")
    page.keyboard.press("Home")
    expect(tokens.first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#tokens button[tabindex='0']")).to_have_count(1)
    shares = [float(text.rstrip("%")) for text in rows.locator("td:nth-child(2)").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 100.2


def test_the_number_of_alternatives_has_bounds_too(page: Page) -> None:
    page.get_by_label("logprobs", exact=True).check()
    box(page, "alternatives").fill("99")
    page.get_by_role("button", name="Run").click()
    expect(page.locator("#error")).to_have_text("logprobs is 99, not a whole number from 1 to 20.")
    expect(box(page, "alternatives")).to_be_focused()
    box(page, "alternatives").fill("")
    expect(page.get_by_label("logprobs", exact=True)).to_be_checked()
    expect(page.locator("#logprobs-problem")).to_contain_text("logprobs is empty")


def test_a_link_restores_every_field_that_differs(page: Page, live_server: LiveServer) -> None:
    fields = {
        "mode": "messages", "system": "Be <b>brief</b>.", "prompt": "50% of #1?\nSo?", "lora": "intaglio-json",
        "scale": "0.5", "stream": "false", "logprobs": "7", "language": "worker", "temperature": "0.7", "min_p": "0.1",
        "ignore_eos": "true", "stop": '["a&b", "#"]', "guided_regex": "[a-z]+\\s", "tool_choice": "none",
    }  # fmt: skip
    open_complete(page, live_server, **fields)
    page.reload()
    expect(page.locator("#complete-temperature")).to_have_value("0.7")
    expect(page.locator("#complete-stop")).to_have_value('["a&b", "#"]')
    expect(page.locator("#complete-guided_regex")).to_have_value("[a-z]+\\s")
    expect(page.locator("#complete-ignore_eos")).to_be_checked()
    expect(box(page, "alternatives")).to_have_value("7")
    expect(page.get_by_label("stream", exact=True)).not_to_be_checked()
    page.locator("#language").select_option("fetch")
    body = page.locator("#code").inner_text()
    for carried in ("temperature: 0.7", "min_p: 0.1", "ignore_eos: true", 'stop: ["a&b", "#"]', "top_logprobs: 7"):
        assert carried in body


def test_code_and_answer_have_copy_buttons(browser: Browser, live_server: LiveServer) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    with watched_page(browser, live_server.url, permissions=permissions) as page:
        open_complete(page, live_server, prompt="One, two,", max_tokens="3", temperature="0")
        answer = run(page)
        page.get_by_role("button", name="Copy the answer").click()
        assert page.evaluate("() => navigator.clipboard.readText()").strip() == answer.strip()
        page.get_by_role("button", name="Copy the code").click()
        assert page.evaluate("() => navigator.clipboard.readText()") == page.locator("#code").text_content()
