"""Text as HTML: the few elements of which the pages are made. Everything that is not made here is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

_MARKED = re.compile(r"`([^`]+)`")


def code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def link(address: str, text: str) -> str:
    return f'<a href="{escape(address)}">{escape(text)}</a>'


def in_words(text: str) -> str:
    """A line of a description: its backticks become code."""
    return _MARKED.sub(lambda found: code(found[1]), escape(text, quote=False))


def prose(text: str) -> str:
    """A description: paragraphs, and lists whose items begin with a dash."""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        items = re.split(r"(?:^|\n)- ", block)
        if len(items) > 1 and not items[0].strip():
            parts.append("<ul>" + "".join(f"<li>{in_words(' '.join(one.split()))}</li>" for one in items[1:]) + "</ul>")
        else:
            parts.append(f"<p>{in_words(' '.join(block.split()))}</p>")
    return "".join(parts)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """head: plain text; rows: cells of HTML."""
    top = "".join(f'<th scope="col">{escape(one)}</th>' for one in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
