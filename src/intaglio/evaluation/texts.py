"""The texts of a run: UTF-8 files, or standard input as `-`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from intaglio.errors import EvaluationError
from intaglio.files.regular_file import open_regular

STDIN = "-"
MAX_TEXT_BYTES = 256 << 20  # its tokens take some 60 times as much as Python integers


@dataclass(frozen=True, slots=True)
class Text:
    """name: as it was given; `<stdin>` for standard input."""

    name: str
    content: str


def read_texts(names: Sequence[str], stdin: BinaryIO | None = None) -> list[Text]:
    """Read every text, in the given order. A byte order mark at the beginning is dropped.

    Raises EvaluationError naming a text that cannot be read, is empty or too large, or is not UTF-8 (with the byte).
    """
    if names.count(STDIN) > 1:
        raise EvaluationError("standard input (-) is given twice; it can be read once")
    return [_read(name, stdin) for name in names]


def _read(name: str, stdin: BinaryIO | None) -> Text:
    if name == STDIN:
        return _decoded("<stdin>", (stdin or sys.stdin.buffer).read(MAX_TEXT_BYTES + 1))
    with open_regular(Path(name).expanduser(), name, EvaluationError) as file:
        return _decoded(name, file.read(MAX_TEXT_BYTES + 1))


def _decoded(name: str, data: bytes) -> Text:
    if len(data) > MAX_TEXT_BYTES:
        raise EvaluationError(f"{name} has more than {MAX_TEXT_BYTES} bytes; split it into several files")
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{name} is not UTF-8: byte {error.start} ({error.reason})") from error
    if not content.strip():
        raise EvaluationError(f"{name} is empty; a text is needed")
    return Text(name, content)
