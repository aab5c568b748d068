"""Links of the pages, as the site has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"README.md": "index.md", "ARCHITECTURE.md": "architecture.md", "workers/README.md": "worker_module.md"}


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.syspath_prepend(ROOT / "scripts" / "site")
    from links import site_links  # type: ignore[import-not-found]

    return lambda text, page, source="": str(site_links(text, page, PAGES, ROOT, source))


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("docs/adapters.md", "[a](http_api.md#errors)", "[a](http_api.md#errors)"),
        ("docs/adapters.md", "[a](../ARCHITECTURE.md)", "[a](architecture.md)"),
        ("docs/decisions/0002-tokenizer.md", "[a](../../README.md#start)", "[a](../index.md#start)"),
        ("docs/workers.md", "[a](../workers/README.md)", "[a](worker_module.md)"),
        ("README.md", "[a](docs/adapters.md)", "[a](adapters.md)"),
        ("README.md", "[a](https://example.org/x.md)", "[a](https://example.org/x.md)"),
        ("README.md", "```sh\n[a](docs/adapters.md)\n```", "```sh\n[a](docs/adapters.md)\n```"),
        ("docs/adapters.md", "[the kernels](../csrc)", "the kernels (`csrc`)"),
        ("docs/adapters.md", "[`Makefile`](../Makefile)", "`Makefile`"),
    ],
)
def test_a_link_leads_to_the_same_page_of_the_site(
    changed: Callable[..., str], page: str, text: str, expected: str
) -> None:
    assert changed(text, page) == expected


def test_a_file_that_is_no_page_is_linked_where_the_repository_has_an_address(changed: Callable[..., str]) -> None:
    linked = changed("[the kernels](../csrc)", "docs/adapters.md", "https://example.org/blob/main")
    assert linked == "[the kernels](https://example.org/blob/main/csrc)"
