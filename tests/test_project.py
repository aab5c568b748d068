"""The promises of the project's pages: what they name exists, and what exists is named."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from intaglio import errors
from intaglio.settings import PREFIX, ClientSettings, Settings
from intaglio.version import __version__

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = (".py", ".h", ".cpp")
ALL_SETTINGS = {**Settings.model_fields, **ClientSettings.model_fields}
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def expected_row(name: str, default: Any) -> str:
    """The first three cells of a setting's row in docs/settings.md."""
    shown = "none" if default in (None, ()) else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    return f"| `--{name.replace('_', '-')}` | `{PREFIX}{name.upper()}` | {shown} |"


def test_every_setting_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = [expected_row(name, field.default) for name, field in ALL_SETTINGS.items()]
    assert [row for row in rows if row not in page] == []


def test_no_setting_is_documented_that_does_not_exist() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    documented = set(re.findall(rf"^\| `--[a-z-]+` \| `{PREFIX}([A-Z_]+)` \|", page, re.MULTILINE))
    assert documented == {name.upper() for name in ALL_SETTINGS}


def test_the_version_heads_the_changelog() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0].split()[0] == __version__


def drawn_tree() -> dict[str, str | None]:
    """Class -> base, as drawn at the top of errors.py: four columns of drawing per level."""
    lines = [re.match(r"^([ │├└─]*)([A-Z]\w*Error)\b", line) for line in (errors.__doc__ or "").splitlines()]
    drawn = [(len(match[1]), match[2]) for match in lines if match]
    branch: list[str] = []
    tree: dict[str, str | None] = {}
    for indent, name in drawn:
        depth = (indent - drawn[0][0]) // 4
        branch[depth:] = [name]
        tree[name] = branch[depth - 1] if depth else None
    return tree


def test_every_error_stands_in_the_drawn_tree_under_its_base() -> None:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.IntaglioError)]
    root = errors.IntaglioError
    assert drawn_tree() == {one.__name__: None if one is root else (one.__base__ or object).__name__ for one in classes}


def test_every_error_says_what_it_means() -> None:
    classes = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.IntaglioError)]
    assert [one.__name__ for one in classes if not one.__dict__.get("__doc__")] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_make_targets_named_in_a_page_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    commands = re.findall(r"`make ([a-z0-9-]+)[^`]*`|^\$? ?make ([a-z0-9-]+)", page.read_text(), re.MULTILINE)
    assert {first or second for first, second in commands} <= targets


def test_files_and_names_in_the_architecture_page_exist() -> None:
    """A file may be named by the end of its path; a name must stand in some file of the code."""
    code = [
        path for folder in ("src", "csrc", "tests") for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES
    ]
    known = [f"/{path.relative_to(ROOT).as_posix()}" for path in [*code, ROOT / "CMakeLists.txt"]]
    page = (ROOT / "ARCHITECTURE.md").read_text()
    files = set(re.findall(r"`([\w/]+\.(?:py|h|cpp|txt))`", page))
    assert len(files) > 30
    assert [file for file in sorted(files) if not any(path.endswith(f"/{file}") for path in known)] == []
    names = {one.split(".")[-1] for one in re.findall(r"`((?:[A-Z]\w+\.)?_?[A-Za-z]\w+)(?:\(\))?`", page)}
    text = "\n".join(path.read_text() for path in code)
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


def test_every_make_target_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    helped = set(re.findall(r"^([a-z0-9-]+):.*## \S", makefile, re.MULTILINE))
    assert set(phony[1].split()) == helped


def test_every_exported_name_is_described() -> None:
    import intaglio

    assert [name for name in intaglio.__all__ if not inspect.getdoc(getattr(intaglio, name))] == []


def test_the_gemma_notice_goes_with_the_adapters_made_from_it() -> None:
    notice = (ROOT / "NOTICE").read_text()
    sentence = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    assert sentence in " ".join(notice.split())


def test_no_placeholder_is_left_in_a_page() -> None:
    assert [page.name for page in PAGES if re.search(r"TODO|FIXME|TBD", page.read_text())] == []
