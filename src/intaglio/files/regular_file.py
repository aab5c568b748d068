"""Open a path that may not be a file: a pipe would let the reader wait for ever, a device has no end."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from intaglio.errors import IntaglioError


def open_regular(path: Path, label: str, error: type[IntaglioError]) -> BinaryIO:
    """Open a regular file for reading; links are followed, as the hub's snapshots are links.

    The type is asked of the open descriptor, not of the path, which may be replaced in between.

    label  names the file in messages
    error  raised when it cannot be opened or is not a regular file
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as fault:
        raise error(f"{label} cannot be read: {fault.strerror}") from fault
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise error(f"{label} is not a regular file")
    return os.fdopen(descriptor, "rb")
