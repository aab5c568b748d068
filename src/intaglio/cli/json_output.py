"""What `--json` prints: one JSON value on standard output, and nothing else there. Errors stay sentences on stderr."""

from __future__ import annotations

import json
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


def print_json(value: object) -> None:
    """Print it indented, with letters of every language as they are."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
