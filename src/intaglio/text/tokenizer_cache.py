"""Prepared tokenizers on disk, so that later starts do not parse the tokenizer's file again.

The name of a cache file is a hash of the sources' paths, sizes and times of change; its content has a checksum. A
damaged, old or missing file is rebuilt.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from intaglio.files.atomic_write import PRIVATE, atomic_write

_MAGIC = b"intaglio tokenizer 1\n"  # increase the number when PreparedTokenizer, or how it is made, changes
_DIGEST_BYTES = 32

_log = logging.getLogger(__name__)


class PreparedTokenizer(msgspec.Struct, frozen=True):
    """All that a `Tokenizer` is built from.

    model        a SentencePiece model, serialized
    control_ids  text -> id of every piece that plain text is never encoded to
    """

    model: bytes
    control_ids: dict[str, int]
    bos_id: int
    eos_id: int
    pad_id: int | None


def prepare_cached(
    sources: Sequence[Path], num_rows: int | None, cache_dir: Path | None, prepare: Callable[[], PreparedTokenizer]
) -> PreparedTokenizer:
    """The prepared tokenizer: from `cache_dir` if it is there undamaged, else made and stored there.

    sources   the files that `prepare` reads; all but the first may be missing
    num_rows  what else it depends on: see `load_tokenizer`

    Without a `cache_dir`, or if it cannot be written, it is made each time (the latter is logged).
    """
    if cache_dir is None:
        return prepare()
    file = cache_dir / _cache_name(sources, num_rows)
    prepared = _load(file)
    if prepared is None:
        prepared = prepare()
        try:
            _store(file, prepared)
        except OSError as err:
            _log.warning("the tokenizer of %s is not cached in %s: %s", sources[0], cache_dir, err)
    return prepared


def _cache_name(sources: Sequence[Path], num_rows: int | None) -> str:
    identity = [str(num_rows)]
    for source in sources:
        if source is sources[0] or source.exists():
            status = source.stat()
            identity.append(f"{source.resolve()}\0{status.st_size}\0{status.st_mtime_ns}")
    return f"tokenizer-{hashlib.sha256(_MAGIC + os.fsencode(chr(0).join(identity))).hexdigest()[:32]}.bin"


def _load(file: Path) -> PreparedTokenizer | None:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        _log.warning("the cached tokenizer %s cannot be read and is made again: %s", file, err)
        return None
    head = len(_MAGIC) + _DIGEST_BYTES
    content = memoryview(data)[head:]
    if data[:head] != _MAGIC + hashlib.sha256(content).digest():
        _log.warning("the cached tokenizer %s is damaged and is made again", file)
        return None
    return msgspec.msgpack.decode(content, type=PreparedTokenizer)  # the checksum has been verified


def _store(file: Path, prepared: PreparedTokenizer) -> None:
    content = msgspec.msgpack.encode(prepared)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file, mode=PRIVATE) as out:
        out.write(_MAGIC + hashlib.sha256(content).digest() + content)
