"""Rows and files that change together: what no row points to afterwards is removed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from intaglio.adapters.catalogue import Catalogue
from intaglio.adapters.files import FileStore

logger = logging.getLogger(__name__)


class Holdings:
    """The one place from which files are put in place for a finetune, or taken away."""

    def __init__(self, catalogue: Catalogue, files: FileStore) -> None:
        self._catalogue = catalogue
        self._files = files

    @contextmanager
    def changing(
        self, finetune_id: str, *, new_blobs: Iterable[str] = (), new_folders: Iterable[str] = ()
    ) -> Iterator[None]:
        """Within the block files may be put in place and the finetune's rows change; nobody else does so meanwhile.

        new_blobs, new_folders  names of what the block may put in place: removed too if it fails before the row
        """
        with self._files.placing():
            blobs = {*self._catalogue.kept_blobs(finetune_id), *new_blobs}
            folders = {*self._catalogue.kept_folders(finetune_id), *new_folders}
            try:
                yield
            finally:
                self._remove_unused(blobs, folders)

    def sweep(self) -> int:
        """Remove whatever no row points to. Only while nobody else uses the folder. Returns how many things."""
        with self._files.placing():
            return self._files.sweep(self._catalogue.kept_blobs(), self._catalogue.kept_folders())

    def _remove_unused(self, blobs: set[str], folders: set[str]) -> None:
        try:
            self._files.remove(blobs - self._catalogue.kept_blobs(), folders - self._catalogue.kept_folders())
        except OSError as error:  # the rows are right already, and the next start sweeps
            logger.warning("unused adapter files stay until the next start: %s", error)
