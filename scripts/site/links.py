"""Links of the pages, which are written for a reader of the repository, as links of the site.

A link to a page outside of docs/ leads to its place on the site. Any other file of the repository is no page: with the
address of the repository its link leads there, without one it becomes text that names the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
DOCS = "docs/"


def site_links(text: str, page: str, pages: Mapping[str, str], root: Path, source: str) -> str:
    """The page's Markdown with its links as the site has them; code blocks stay as they are.

    page    path of the file in the repository that the text comes from
    pages   path in the repository -> path on the site, of all pages that are not where docs/ has them
    root    of the repository
    source  address of the repository's files at this commit, without a slash at the end; "" for none
    """
    here = pages.get(page, page.removeprefix(DOCS))

    def changed(found: re.Match[str]) -> str:
        target, _, anchor = found["target"].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), target))
        place = pages.get(path) or (path.removeprefix(DOCS) if path.startswith(DOCS) else None)
        if place is None and not (root / path).exists():
            return found[0]  # text that only looks like a link; a link that leads nowhere is found by the build
        if place is not None:
            address = posixpath.relpath(place, posixpath.dirname(here) or ".") + (f"#{anchor}" if anchor else "")
        elif source:
            address = f"{source}/{path}"
        else:
            name = found["text"].strip("`")
            return found["text"] if path.endswith(name) or name in path else f"{found['text']} (`{path}`)"
        return f"{found['image']}[{found['text']}]({address})"

    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(changed, part) for part in parts[::2]]
    return "".join(parts)
