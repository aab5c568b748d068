"""The human-readable output of `intaglio adapters`: lists and single finetunes as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

_DIGEST_CHARACTERS = 12  # of a digest that are shown
_COLUMNS = 200  # without a terminal

Json = Mapping[str, Any]


def show_list(found: Sequence[Json]) -> None:
    """An account's own finetunes, one line for each."""
    _show_lines(found, ("name", "state", "version", "public", "model", "description"))


def show_public_list(found: Sequence[Json]) -> None:
    """Public finetunes of all accounts, with their ids, by which other accounts use them."""
    _show_lines(found, ("name", "id", "state", "model", "description"))


def _show_lines(found: Sequence[Json], fields: Sequence[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for name in fields:
        # A narrow terminal cuts model and description; names and ids stay whole, to be copied.
        table.add_column(name, no_wrap=name not in ("model", "description"))
    for one in found:
        table.add_row(*(_cell(one[name], no_wrap=True) for name in fields))
    table_console().print(table if found else "no adapters")


def show_one(found: Json) -> None:
    """A finetune, from the JSON of GET /finetunes/{name}."""
    fields = ("id", "name", "model", "description", "public", "state", "reason", "version", "digest", "modified_at")
    rows = {name: found[name] for name in fields if found.get(name) not in (None, "")}
    for file in found.get("files", ()):
        rows[file["file_name"]] = _file_text(file)
    rows["verification"] = verification_text(found.get("verification"))
    for one in found.get("earlier", ()):
        rows[f"version {one['version']}"] = f"digest {one['digest'][:_DIGEST_CHARACTERS]}, kept for a rollback"
    if "pending" in found:
        rows["pending"] = _pending_text(found["pending"])
    elif "missing_files" in found:
        rows["missing"] = ", ".join(found["missing_files"])
    if "check" in found:
        rows["check"] = f"{found['check']['step']} since {found['check']['step_since']}"
    _show_rows(rows)


def show_verification(verification: Json) -> None:
    notes = "; ".join(verification["notes"])
    shown = {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in verification.items()}
    _show_rows(shown | {"notes": notes or "none"})


def show_deleted(gone: Json) -> None:
    table_console().print(_cell(f"deleted {gone['name']} ({gone['id']})"))


def show_paths(paths: Sequence[str]) -> None:
    for path in paths:
        print(path)


def verification_text(found: Json | None) -> str:
    """A verification in one line."""
    if found is None:
        return "none"
    scaled = "" if found["scalable"] else ", cannot be scaled or mixed"
    return (
        f"{found['verdict']} in {found['seconds']:.2f} s: "
        f"{found['modules']} modules of rank {found['rank']}, "
        f"logits change by {found['mean_logit_change']:.3g} (at most {found['largest_logit_change']:.3g}), "
        f"agreement with the reference {found['agreement']:.4%}{scaled}"
        f"{''.join(f'; {note}' for note in found.get('notes', ()))}"
    )


def _file_text(file: Json) -> str:
    return f"{file['size']:,} bytes, sha256 {file['sha256'][:_DIGEST_CHARACTERS]}, {file['uploaded_at']}"


def _pending_text(pending: Json) -> str:
    missing = f", missing {', '.join(pending['missing_files'])}" if pending["missing_files"] else ""
    reason = f": {pending['reason']}" if pending.get("reason") else ""
    return f"version {pending['version']} {pending['state']}{missing}{reason}"


def _show_rows(rows: Json) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, _cell(value))
    table_console().print(table)


def _cell(value: object, no_wrap: bool = False) -> Text:
    """A value as plain text: names and descriptions of other accounts may hold markup and control characters."""
    shown = {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    printable = "".join(letter if letter.isprintable() else " " for letter in shown)
    return Text(printable, no_wrap=no_wrap, overflow="ellipsis" if no_wrap else "fold")


def table_console() -> Console:
    """The terminal, or without one a page that is wide enough for tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_COLUMNS)
