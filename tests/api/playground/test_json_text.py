"""The playground's reader of typed JSON: it takes what JSON.parse takes, and says where the rest is broken."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page

from tests.helpers.browser import needs_browser

pytestmark = needs_browser

READ = 'async (text) => (await import("/json_text.js")).readJson(text)'


def read(page: Page, text: str) -> dict[str, Any]:
    told: dict[str, Any] = page.evaluate(READ, text)
    return told


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a": [1, -2.5e3, "é\\n\\u00e9", true, null]}', {"a": [1, -2500, "é\né", True, None]}), (" [] ", []), ("7", 7)],
)
def test_json_is_read(page: Page, text: str, value: object) -> None:
    assert read(page, text) == {"value": value}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1,}', "line 1, column 9: a key in double quotes is expected, not }."),
        ('{\n  "a": 1\n  "b": 2\n}', 'line 3, column 3: a comma or } is expected, not ".'),
        ('{"a" 1}', "line 1, column 6: a colon is expected, not 1."),
        ('{"a": }', "line 1, column 7: a value is expected, not }."),
        ("[1, 2", "line 1, column 6: a comma or ] is expected, but the text ends here."),
        ("[1, 2}", "line 1, column 6: a comma or ] is expected, not }."),
        ("[1,]", "line 1, column 4: a value is expected, not ]."),
        ("{'a': 1}", "line 1, column 2: texts stand in double quotes."),
        (
            '{"a": "b\n"}',
            "line 1, column 7: this text has no closing quote, a line break in it, or a wrong escape.",
        ),
        ("{} {}", "line 1, column 4: the JSON ends before this place, but the text goes on."),
        ("[01]", "line 1, column 3: a comma or ] is expected, not 1."),
        ("\n\n", "line 3, column 1: a value is expected, but the text ends here."),
        ("[\N{NO-BREAK SPACE}1]", "line 1, column 2: a value is expected, not \N{NO-BREAK SPACE}."),
    ],
)
def test_the_place_of_a_fault_is_named(page: Page, text: str, problem: str) -> None:
    assert read(page, text) == {"problem": problem}


def test_deep_and_long_texts_have_a_place_too(page: Page) -> None:
    depth = 100_000
    assert read(page, "[" * depth)["problem"].startswith(f"line 1, column {depth + 1}: a value is expected")
    long = '"' + "a" * 1_000_000
    assert read(page, long)["problem"].startswith("line 1, column 1: this text has no closing quote")
