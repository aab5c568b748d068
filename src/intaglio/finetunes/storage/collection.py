"""Rows and files that change together: what no row points to afterwards is removed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from intaglio.errors import DatabaseError, StorageFullError
from intaglio.finetunes.db.repository import FinetuneRepository
from intaglio.finetunes.storage.blobs import FileStore

logger = logging.getLogger(__name__)


class Holdings:
    """The one place from which files are put in place for a finetune, or taken away.

    untidy  something failed that may have left a file without a row, or the state of a check that is over
    """

    def __init__(self, catalogue: FinetuneRepository, files: FileStore) -> None:
        self._catalogue = catalogue
        self._files = files
        self.untidy = False

    @contextmanager
    def changing(
        self, finetune_id: str, *, new_blobs: Iterable[str] = (), new_folders: Iterable[str] = ()
    ) -> Iterator[None]:
        """Within the block files may be put in place and the finetune's rows change; nobody else does so meanwhile.

        new_blobs, new_folders  names of what the block may put in place: removed too if it fails before the row
        """
        with self._files.placing():
            blobs, folders = self._catalogue.files_of(finetune_id)
            try:
                yield
            finally:
                self._remove_unused(blobs.union(new_blobs), folders.union(new_folders))

    def collect(self) -> int:
        """Remove whatever no row points to and nobody works on, and end the checks that nobody runs any more.

        Other servers may use the folder meanwhile. Returns how many things were removed. Raises DatabaseError or
        OSError; then the rest waits for the next time.
        """
        was_untidy, self.untidy = self.untidy, False  # first: what fails meanwhile elsewhere counts for the next time
        try:
            with self._files.placing():
                swept = self._files.sweep(self._catalogue.unused)
            if swept.uploads_run:  # which of the checks are over cannot be told
                self.untidy |= was_untidy
            else:
                self._catalogue.settle_all()
        except BaseException:
            self.untidy = True
            raise
        if swept.num_removed:
            logger.info("removed %d unfinished or unused adapter files", swept.num_removed)
        return swept.num_removed

    def _remove_unused(self, blobs: set[str], folders: set[str]) -> None:
        try:
            self._files.remove(*self._catalogue.unused(blobs, folders))
        except (OSError, DatabaseError, StorageFullError) as error:  # the rows are right, and the files can wait
            self.untidy = True
            logger.warning("unused adapter files stay until they are collected: %s", error)
