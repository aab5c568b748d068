"""The bytes of every token, in a file beside the prepared tokenizer. The engine reads it to enforce grammars. The
file's name contains the vocabulary's digest, so a file that exists is never outdated.
"""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec

from intaglio.files.atomic_write import PRIVATE, atomic_write
from intaglio.text.tokenizer import Tokenizer

_FORMAT = 1  # increase it when TokenTable changes

_log = logging.getLogger(__name__)


def token_table_file(tokenizer: Tokenizer, cache_dir: Path) -> Path:
    """The file with a `request.TokenTable` as msgpack; written if it does not exist.

    If it cannot be written, that is logged, and only requests with a grammar will fail.
    """
    file = cache_dir / f"tokens-{_FORMAT}-{tokenizer.digest[:32]}.bin"
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file, mode=PRIVATE) as out:
                out.write(msgspec.msgpack.encode(tokenizer.token_table()))
        except OSError as error:
            _log.warning("%s cannot be written, so no grammar can be enforced: %s", file, error)
    return file
