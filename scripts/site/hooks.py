"""What mkdocs.yml adds to MkDocs: pages from outside of docs/, generated pages, and their links.

SITE_SOURCE is the address of the repository's files at this commit, if the site is to link to them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from api_reference import api_reference
from cli_reference import cli_reference
from links import DOCS, site_links
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Pages that are elsewhere in the repository -> their place on the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "workers/README.md": "worker_module.md",
}
GENERATED = {"api_reference.md": api_reference, "cli_reference.md": cli_reference}
ORIGINS = {place: path for path, place in PAGES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, place in PAGES.items():
        files.append(File.generated(config, place, content=(ROOT / path).read_text("utf-8")))
    for place, generate in GENERATED.items():
        files.append(File.generated(config, place, content=generate()))
    return files


def on_page_markdown(markdown: str, page: Page, **_others: Any) -> str:
    place = page.file.src_uri
    if place in GENERATED:
        return markdown
    origin = ORIGINS.get(place, DOCS + place)
    return site_links(markdown, origin, PAGES, ROOT, os.environ.get("SITE_SOURCE", ""))


def on_serve(server: Any, **_others: Any) -> Any:
    for path in PAGES:
        server.watch(str(ROOT / path))
    return server
