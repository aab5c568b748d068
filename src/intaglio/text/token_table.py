"""The bytes of every token in a file beside the prepared tokenizer: the engine reads it when an answer has to follow a
grammar. Its name holds the vocabulary's digest, so that what is there is right.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import msgspec

from intaglio.text.tokenizer import Tokenizer

_FORMAT = 1  # count up when TokenTable changes

_log = logging.getLogger(__name__)


def token_table_file(tokenizer: Tokenizer, cache_dir: Path) -> Path:
    """The file with a `request.TokenTable` as msgpack; written if it is not there.

    Where it cannot be written this is logged: only requests with a grammar will fail.
    """
    file = cache_dir / f"tokens-{_FORMAT}-{tokenizer.digest[:32]}.bin"
    if not file.exists():
        try:
            _write(file, msgspec.msgpack.encode(tokenizer.token_table()))
        except OSError as error:
            _log.warning("%s cannot be written, so no answer can follow a grammar: %s", file, error)
    return file


def _write(file: Path, data: bytes) -> None:
    """Write aside, sync, rename: a reader sees the whole file or none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
