"""When the data folder is tidied: at the start, with a change an hour after the last time, and after a failure.

No thread of its own: whoever changes something pays for it, in milliseconds.
"""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

from intaglio.errors import DatabaseError, StorageFullError
from intaglio.finetunes.clock import Clock
from intaglio.finetunes.storage.collection import Holdings

logger = logging.getLogger(__name__)

EVERY = timedelta(hours=1)  # another server on the folder may have been killed in the middle of an upload


class Housekeeping:
    """Decides when `Holdings.collect` runs. What goes wrong in it is no fault of the request that it ran with."""

    def __init__(self, holdings: Holdings, clock: Clock) -> None:
        self._holdings = holdings
        self._clock = clock
        self._last = clock()
        self._one_at_a_time = threading.Lock()

    def after_change(self) -> None:
        """Something was changed: tidy up if it is time."""
        if self._holdings.untidy or self._clock() - self._last >= EVERY:
            self._try()

    def after_failure(self) -> bool:
        """Whether something was left behind and has been put right just now."""
        return self._holdings.untidy and self._try()

    def _try(self) -> bool:
        if not self._one_at_a_time.acquire(blocking=False):
            return False
        try:
            self._last = self._clock()
            self._holdings.collect()
        except (OSError, DatabaseError, StorageFullError) as error:
            logger.warning("the data folder cannot be tidied now: %s", error)
            return False
        finally:
            self._one_at_a_time.release()
        return True
