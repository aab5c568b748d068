"""A full disk, or a quota that is used up, as an error of ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from intaglio.errors import StorageFullError


@contextmanager
def full_disk_as_error() -> Iterator[None]:
    """Raise StorageFullError where the system says that there is no room; other faults stay what they are."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError() from error
        raise
