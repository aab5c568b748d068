"""Which server runs the batches of a model, when several servers share one data folder.

One lock file per model. The kernel drops the lock of a killed process, so another server, or the same one after a
restart, can continue its batches at once.
"""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path
from typing import BinaryIO


class ModelClaims:
    """The models whose batches this server runs. Claims end with `release`, `close` or the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._held: dict[str, BinaryIO] = {}

    def claim(self, model: str) -> bool:
        """Acquire the claim unless this server has it already. False if another server has it."""
        if model in self._held:
            return True
        name = hashlib.sha256(model.encode()).hexdigest()[:32]  # an id may contain characters that a file name may not
        file = (self._folder / f"{name}.lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._held[model] = file
        return True

    def release(self, model: str) -> None:
        self._held.pop(model).close()

    def close(self) -> None:
        """Release all claims. May be called again."""
        for model in list(self._held):
            self.release(model)
