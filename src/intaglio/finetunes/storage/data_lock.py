"""One lock file per data folder, so that only a server that is alone in it changes its tables.

Every server holds the lock shared while it runs. A server that gets it exclusively at its start knows that no server of
an earlier version uses the folder. The kernel drops the lock of a killed process.
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
        """Let other servers in, once the tables are those of this version."""
        fcntl.flock(self._file, fcntl.LOCK_SH)

    def close(self) -> None:
        self._file.close()
