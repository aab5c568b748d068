"""The playground's Markdown, in a real browser: which nodes a completion becomes, and that markup in it stays text."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.helpers.browser import needs_browser

pytestmark = needs_browser

RENDER = """async (text) => {
  const { markdownNodes } = await import("/markdown.js");
  const holder = document.createElement("div");
  const start = performance.now();
  holder.append(...markdownNodes(text));
  return { html: holder.innerHTML, milliseconds: performance.now() - start };
}"""


def rendered(page: Page, text: str) -> str:
    html: str = page.evaluate(RENDER, text)["html"]
    return html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
        ("## Title", "<h4>Title</h4>"),
        ("a **b** *c* `d*e*` ~~f~~", "<p>a <strong>b</strong> <em>c</em> <code>d*e*</code> <del>f</del></p>"),
        ("2 * 3 * 4 and a_name_here", "<p>2 * 3 * 4 and a_name_here</p>"),
        (r"\*not\* **open", "<p>*not* **open</p>"),
        ("- a\n- b\n  - c\n\nd", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><p>d</p>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> q\n> r", "<blockquote><p>q\nr</p></blockquote>"),
        ("---", "<hr>"),
    ],
)
def test_text_becomes_these_nodes(page: Page, text: str, html: str) -> None:
    assert rendered(page, text) == html


def test_a_code_block_has_its_language_and_a_copy_button_also_before_it_is_closed(page: Page) -> None:
    for text in ("```python\nprint('<b>')\n```", "```python\nprint('<b>')"):
        html = rendered(page, text)
        assert "<span>python</span>" in html
        assert ">Copy</button>" in html
        assert "<code>print('&lt;b&gt;')</code>" in html


def test_a_table_has_a_head_and_rows(page: Page) -> None:
    html = rendered(page, "| a | b |\n|---|---|\n| 1 | **2** |")
    assert "<thead><tr><th>a</th><th>b</th></tr></thead>" in html
    assert "<tbody><tr><td>1</td><td><strong>2</strong></td></tr></tbody>" in html


def test_only_links_that_run_no_script_become_links(page: Page) -> None:
    html = rendered(page, "[site](https://example.org/a) and https://example.org/b.")
    assert html.count('rel="noopener noreferrer"') == 2
    assert 'href="https://example.org/b"' in html
    for address in (
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "data:text/html,x",
        "/relative",
        " javascript:alert(1)",
    ):
        assert "<a" not in rendered(page, f"[x]({address})")


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![x](https://example.org/x.png)",
        "**<svg onload=alert(1)>**",
        "| <iframe> | b |\n|---|---|\n| <object> | 2 |",
    ],
)
def test_markup_in_a_completion_stays_text(page: Page, text: str) -> None:
    tags = ("<script", "<img", "<svg", "<iframe", "<object")
    assert not any(tag in rendered(page, text) for tag in tags)


@pytest.mark.parametrize(
    "text", ["*a" * 20_000, "[" * 40_000, "> " * 20_000, "- " * 20_000, "`" * 39_999, "_a " * 20_000]
)
def test_a_text_of_open_marks_is_rendered_in_little_time(page: Page, text: str) -> None:
    assert page.evaluate(RENDER, text)["milliseconds"] < 3000


def test_line_breaks_of_any_kind_and_an_empty_text_are_fine(page: Page) -> None:
    assert rendered(page, "") == ""
    assert rendered(page, "a\r\n\r\nb") == "<p>a</p><p>b</p>"
