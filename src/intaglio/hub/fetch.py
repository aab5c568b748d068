"""From a reference to a path: list the files at the hub and fetch those that are missing, or use the cache alone."""

from __future__ import annotations

import errno
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from intaglio.errors import HubError, HubUnreachableError, ModelFormatError, StorageFullError
from intaglio.files.json_object import read_json_object
from intaglio.hub.cache import CompleteModel, RepositoryCache
from intaglio.hub.progress import DownloadProgress, NoProgress, size_text
from intaglio.hub.reference import HubReference
from intaglio.hub.remote import Hub, Listing, RemoteFile
from intaglio.hub.selection import gguf_files, safetensors_files, text_files, wants_gguf
from intaglio.hub.transfer import Transfer
from intaglio.model.config import Family, config_from_hf
from intaglio.model.relatives import refusal
from intaglio.model.weights.hugging_face import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE

logger = logging.getLogger(__name__)

DEFAULT_REVISION = "main"
_MAX_JSON_BYTES = 16 << 20


def fetch_model(reference: HubReference, progress: DownloadProgress, hub: Hub | None = None) -> Path:
    """The folder of a model, or the first part of its GGUF file, in the hub's cache. Fetches what is missing there.

    If the hub cannot be reached, a complete model in the cache is used. hub: None is the one named by the environment.
    Raises HubError naming the repository and what to do, HubUnreachableError if the model is not in the cache either,
    StorageFullError before a download that does not fit on the disk.
    """
    hub = hub or Hub()
    cache = RepositoryCache(hub.cache_dir, reference.repo)
    try:
        commit = hub.commit(reference)
        listing = hub.listing(reference, commit)
    except HubUnreachableError as error:
        with _full_disk_named(reference, cache):
            return _from_cache(reference, cache, error)
    with _full_disk_named(reference, cache):
        return _Fetch(hub, reference, listing, cache, progress).path()


def _from_cache(reference: HubReference, cache: RepositoryCache, error: HubUnreachableError) -> Path:
    """The model as it was last fetched, by us or another program. Raises HubUnreachableError if it is not complete."""
    if (model := cache.remembered(reference)) is not None:
        logger.warning("%s: %s; using the cache, commit %s", reference.repo, error, model.commit[:12])
        folder = cache.snapshot(model.commit)
        return folder if model.first is None else folder / model.first
    revision = reference.revision or DEFAULT_REVISION
    commit = cache.known_commit(revision) or revision
    names = cache.names(commit)
    if not names:
        raise HubUnreachableError(f"{error}, and {cache.path} has no file of {reference}") from error
    try:
        path = _path_in(reference, cache, commit, names)
    except HubError as missing:
        raise HubUnreachableError(f"{error}, and the copy in {cache.path} is not complete: {missing}") from error
    logger.warning("%s: %s; using the cache, commit %s", reference.repo, error, commit[:12])
    return path


def _path_in(reference: HubReference, cache: RepositoryCache, commit: str, names: Collection[str]) -> Path:
    """The path of a model whose files are all among `names`. Raises HubError for one that is missing."""
    folder = cache.snapshot(commit)
    if wants_gguf(names, reference):
        return folder / gguf_files(names, reference, all_names=False)[0]
    missing = [
        name for name in safetensors_files(names, _read_index(folder, names), reference.repo) if name not in names
    ]
    if missing:
        raise HubError(f"{reference.repo} lacks {', '.join(missing)}")
    return folder


class _Fetch:
    """The download of one commit."""

    def __init__(
        self, hub: Hub, reference: HubReference, listing: Listing, cache: RepositoryCache, progress: DownloadProgress
    ) -> None:
        self._reference = reference
        self._listing = listing
        self._cache = cache
        self._progress = progress
        self._transfer = Transfer(hub, reference, listing.commit, progress)

    def path(self) -> Path:
        """Fetch what is missing. The config comes first: it tells whether the model can be served."""
        names, folder = self._listing.files.keys(), self._cache.snapshot(self._listing.commit)
        if wants_gguf(names, self._reference):
            chosen = gguf_files(names, self._reference)
            self._refuse_other_architectures()
            self._fetch_all(chosen)
            self._remember(chosen, chosen[0])
            return folder / chosen[0]
        texts = text_files(names)
        quiet = replace(self._transfer, progress=NoProgress())
        for name in (CONFIG_FILE, INDEX_FILE):
            if name in names:
                self._fetch(self._listing.files[name], quiet)
        self._refuse_other_configs(folder)
        weights = safetensors_files(names, _read_index(folder, names), self._reference.repo)
        self._fetch_all([*texts, *weights])
        self._remember([*texts, *weights], None)
        return folder

    def _remember(self, files: Sequence[str], first: str | None) -> None:
        self._cache.remember(self._reference, CompleteModel(self._listing.commit, [*files], first))

    def _fetch_all(self, names: Sequence[str]) -> None:
        files = [self._listing.files[name] for name in names]
        missing = [file for file in files if not self._cache.holds(file, self._listing.commit)]
        if missing:
            self._check_space(missing)
            total = sum(file.size for file in files)
            to_fetch = sum(file.size - self._cache.num_bytes_here(file) for file in missing)
            self._progress.begin(self._reference.repo, len(files), total, total - to_fetch)
        try:
            for file in files:
                self._fetch(file, self._transfer)
        finally:
            if missing:
                self._progress.end()

    def _fetch(self, file: RemoteFile, transfer: Transfer) -> None:
        if self._cache.holds(file, self._listing.commit):
            return
        blob = self._cache.blob(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        with self._cache.lock(file):
            if not blob.is_file():  # another process may have fetched it meanwhile
                transfer.fetch(file, self._cache.partial(file), blob)
        self._cache.put(file, self._listing.commit)

    def _check_space(self, missing: Sequence[RemoteFile]) -> None:
        """Raises StorageFullError if the files do not fit on the disk."""
        needed = sum(file.size - self._cache.num_bytes_here(file) for file in missing)
        free = self._cache.free_bytes()
        if needed > free:
            raise StorageFullError(
                f"{self._reference.repo} needs {size_text(needed)} more in {self._cache.path}, and its disk has "
                f"{size_text(free)} free; free some space, or set HF_HUB_CACHE to a folder on another disk"
            )

    def _refuse_other_configs(self, folder: Path) -> None:
        try:
            config_from_hf(_read_json(folder / CONFIG_FILE))
        except ModelFormatError as error:
            raise HubError(f"{self._reference.repo} cannot be served: {error}") from error

    def _refuse_other_architectures(self) -> None:
        found = self._listing.architecture
        if found is not None and found not in get_args(Family):
            raise HubError(
                f"{self._reference.repo} cannot be served: {refusal('the architecture of its GGUF files', found)}"
            )


def _read_index(folder: Path, names: Collection[str]) -> dict[str, Any] | None:
    return _read_json(folder / INDEX_FILE) if INDEX_FILE in names and WEIGHTS_FILE not in names else None


def _read_json(path: Path) -> dict[str, Any]:
    return read_json_object(path, _MAX_JSON_BYTES, path.name, HubError)


@contextmanager
def _full_disk_named(reference: HubReference, cache: RepositoryCache) -> Iterator[None]:
    """Raises StorageFullError or HubError in place of an OSError of the cache's disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(
                f"the disk of {cache.path} is full; what was downloaded of {reference.repo} is kept: free some space "
                "and start again to resume"
            ) from error
        raise HubError(f"{reference.repo} cannot be written to {cache.path}: {error.strerror or error}") from error
