"""The site as `make docs` builds it: it is whole, and loads nothing from elsewhere. Its pages in a real browser."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.helpers.browser import launch_browser, needs_browser, watched_page

ROOT = Path(__file__).resolve().parents[2]
MKDOCS = ROOT / ".venv-docs" / "bin" / "mkdocs"
BUILD_DEADLINE_S = 110

pytestmark = [
    pytest.mark.slow,
    *needs_browser,
    pytest.mark.skipif(not MKDOCS.exists(), reason="`make docs` makes the environment that builds the site"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. A link that leads nowhere is an error of the build."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [str(MKDOCS), "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=BUILD_DEADLINE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[str]:
    """The address of the site, which has no trailing slash."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


def test_no_list_or_table_has_become_running_text(folder: Path) -> None:
    """MkDocs wants an empty line in front of some lists, where a reader of the repository's files does not."""
    faults = []
    for path in sorted(folder.rglob("index.html")):
        article = re.search(r"<article.*?</article>", path.read_text("utf-8"), re.DOTALL)
        paragraphs = re.findall(r"<(?:p|li)>(.*?)</(?:p|li)>", article[0], re.DOTALL) if article else []
        faults += [
            f"{path.parent.name}: {text[:60]}"
            for text in paragraphs
            if re.search(r"^\s*(-|\d+\.|\|)\s", text, re.MULTILINE)
        ]
    assert faults == []


@pytest.mark.parametrize(
    ("page_path", "heading", "text"),
    [
        ("", "Intaglio", "make serve"),
        ("quick_start/", "Quick start", "intaglio run"),
        ("api_reference/", "HTTP API: every route and field", "/client/v4/accounts/{account}/ai/run/{model}"),
        ("cli_reference/", "Command line: every option", "--json-schema"),
        ("architecture/", "Architecture", "csrc/kernels"),
    ],
)
def test_a_page_is_shown_whole_without_anything_from_elsewhere(
    browser: Browser, site: str, page_path: str, heading: str, text: str
) -> None:
    with watched_page(browser, site) as page:
        page.goto(f"{site}/{page_path}")
        expect(page.locator("article h1")).to_contain_text(heading)
        expect(page.locator("article")).to_contain_text(text)
        broken = (
            "() => [...document.images].filter(image => !image.complete || !image.naturalWidth).map(one => one.src)"
        )
        assert page.evaluate(broken) == []


def test_the_search_finds_a_page_without_a_network(browser: Browser, site: str) -> None:
    with watched_page(browser, site) as page:
        page.goto(site)
        page.get_by_role("textbox", name="Search").fill("preempted sequences")
        expect(page.locator(".md-search-result__item").first).to_be_visible()


def test_every_operation_of_the_api_has_its_own_place_on_the_page(browser: Browser, site: str) -> None:
    with watched_page(browser, site) as page:
        page.goto(f"{site}/api_reference/#create_finetune")
        expect(page.locator("#create_finetune")).to_be_in_viewport()
        # An entry of the contents for each operation and each schema, no anchor twice.
        ids = page.locator("article h3[id]").evaluate_all("all => all.map(one => one.id)")
        assert len(ids) == len(set(ids)) > 100
