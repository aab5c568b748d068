"""Opening what may be no file at all: a pipe would let the reader wait for ever, a device has no end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from intaglio.errors import AdapterError


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; links are followed, as the hub's snapshots are links.

    It is opened without waiting, and what is open is asked what it is: by then the path may be that of something else.
    Raises AdapterError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise AdapterError(f"{path.name} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise AdapterError(f"{path.name} is not a regular file")
    return os.fdopen(descriptor, "rb")
