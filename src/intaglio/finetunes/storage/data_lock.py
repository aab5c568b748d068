"""One lock file per data folder, so that only a server that is alone in it changes its tables.

Every server holds the lock shared while it runs. One that can have it exclusively for a moment knows that no server of
an earlier version uses the folder. The kernel drops the lock of a killed process, so none is ever left behind.
"""

from __future__ import annotations

import fcntl
from pathlib import Path


class DataLock:
    """The shared lock on a data folder; `alone`: no other process held it when it was acquired."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "lock").open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except BlockingIOError:
            fcntl.flock(self._file, fcntl.LOCK_SH)
            self.alone = False

    def share(self) -> None:
        """The tables are right: let others in."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        self._file.close()
