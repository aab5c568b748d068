"""Removing files that no row points to: with each change, hourly, at the start and after failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from intaglio.errors import DatabaseError, StorageFullError
from intaglio.finetunes.db.repository import Clock, FinetuneRepository
from intaglio.finetunes.storage.blobs import FileStore

logger = logging.getLogger(__name__)

INTERVAL = timedelta(hours=1)  # another server on the folder may have been killed in the middle of an upload


class GarbageCollector:
    """All changes of a finetune's files and rows go through `transaction`; `collect` looks at the whole data folder.

    It has no thread of its own: requests that change something run it. It takes milliseconds and never fails a request.

    needs_collection  a failure may have left a file without a row, or the state of a check that is over
    """

    def __init__(self, repository: FinetuneRepository, files: FileStore, clock: Clock) -> None:
        self._repository = repository
        self._files = files
        self._clock = clock
        self._collected_at = clock()
        self._collecting = threading.Lock()
        self.needs_collection = False

    @contextmanager
    def transaction(
        self, finetune_id: str, *, new_blobs: Iterable[str] = (), new_folders: Iterable[str] = ()
    ) -> Iterator[None]:
        """Change the finetune's files and rows in the block, while no other process may change any.

        Files that no row points to afterwards are removed.

        new_blobs, new_folders  names that the block may add: removed too if it fails before their row is written
        """
        with self._files.lock():
            blobs, folders = self._repository.files_of(finetune_id)
            try:
                yield
            finally:
                self._remove_unused(blobs.union(new_blobs), folders.union(new_folders))

    def after_change(self) -> None:
        """Collect if a failure made that necessary, or INTERVAL has passed. To be called after a change."""
        if self.needs_collection or self._clock() - self._collected_at >= INTERVAL:
            self._try_collect()

    def after_failure(self) -> bool:
        """Collect if a failure made that necessary. Returns whether that was done."""
        return self.needs_collection and self._try_collect()

    def collect(self) -> int:
        """Remove what no row points to and no process uses, and end the checks that no process runs.

        Other servers may use the folder meanwhile. Returns how many files and folders were removed. Raises
        DatabaseError or OSError; the rest is then left to the next collection.
        """
        # Reset first: a failure in another thread meanwhile asks for the next collection.
        needed, self.needs_collection = self.needs_collection, False
        try:
            with self._files.lock():
                collected = self._files.collect(self._repository.find_unused)
            if collected.uploads_in_progress:  # a check may belong to one of them
                self.needs_collection |= needed
            else:
                self._repository.end_all_checks()
        except BaseException:
            self.needs_collection = True
            raise
        if collected.num_removed:
            logger.info("removed %d unfinished or unused adapter files", collected.num_removed)
        return collected.num_removed

    def _try_collect(self) -> bool:
        if not self._collecting.acquire(blocking=False):
            return False
        try:
            self._collected_at = self._clock()
            self.collect()
        except (OSError, DatabaseError, StorageFullError) as error:
            logger.warning("unused adapter files cannot be removed now: %s", error)
            return False
        finally:
            self._collecting.release()
        return True

    def _remove_unused(self, blobs: set[str], folders: set[str]) -> None:
        try:
            self._files.remove(*self._repository.find_unused(blobs, folders))
        except (OSError, DatabaseError, StorageFullError) as error:  # the rows are right, and the files can wait
            self.needs_collection = True
            logger.warning("unused adapter files stay until they are collected: %s", error)
