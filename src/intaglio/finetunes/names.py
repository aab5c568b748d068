"""Which names a finetune may have.

A name is used in URLs and log lines and must not look like an id, so it is short, plain and not a UUID. It never
becomes part of a file path: folders are named by digests.
"""

from __future__ import annotations

import re
from uuid import UUID

from intaglio.errors import FinetuneError

MAX_NAME_LENGTH = 128
RESERVED_PREFIXES = ("cf-public-", "intaglio-")
RESERVED_NAMES = ("public",)  # GET /ai/finetunes/public is a route of its own

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_finetune_name(name: str) -> None:
    """Raise FinetuneError, saying why, if `name` is not allowed."""
    if len(name) > MAX_NAME_LENGTH:
        raise FinetuneError(f"a finetune name has at most {MAX_NAME_LENGTH} characters, this one has {len(name)}")
    if not _NAME.fullmatch(name):
        raise FinetuneError(
            f"finetune name {name!r}: only letters, digits, '.', '_' and '-' are allowed, the first a letter or digit"
        )
    for prefix in RESERVED_PREFIXES:
        if name.lower().startswith(prefix):
            raise FinetuneError(f"finetune name {name!r}: names beginning with {prefix!r} are reserved")
    if name.lower() in RESERVED_NAMES:
        raise FinetuneError(f"finetune name {name!r} is reserved")
    if is_id(name):
        raise FinetuneError(f"finetune name {name!r} looks like an id; choose a name that does not")


def is_id(text: str) -> bool:
    """Whether the text has the form of a finetune's id."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True
