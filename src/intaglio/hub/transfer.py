"""One file from the hub to the disk: resumed after an interruption, compared with its hash, then renamed."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from intaglio.errors import HubError, HubUnreachableError
from intaglio.files.atomic_write import move_into_place
from intaglio.hub.progress import DownloadProgress
from intaglio.hub.reference import HubReference
from intaglio.hub.remote import Hub, RemoteFile

logger = logging.getLogger(__name__)

MAX_BREAKS = 6  # interruptions in a row without a new byte
_MAX_WAIT_S = 10.0
_SHA256_DIGITS = 64
_READ_BYTES = 4 << 20


class _Partial:
    """A file that is being downloaded: where its bytes are appended, and the hash of those received so far."""

    def __init__(self, out: BinaryIO, file: RemoteFile) -> None:
        self._out = out
        self._file = file
        self.restart_hash()
        out.seek(0)
        while block := out.read(_READ_BYTES):  # of an interrupted download: what was received before
            self._count(block)

    def restart_hash(self) -> None:
        self.size = 0
        if len(self._file.blob) == _SHA256_DIGITS:
            self._hash = hashlib.sha256()
        else:  # git's hash of a blob
            self._hash = hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)

    def restart(self) -> None:
        self._out.truncate(0)
        self.restart_hash()

    def append(self, chunk: bytes) -> None:
        self._out.write(chunk)
        self._count(chunk)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def _count(self, block: bytes) -> None:
        self._hash.update(block)
        self.size += len(block)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How the files of one commit are fetched."""

    hub: Hub
    reference: HubReference
    commit: str
    progress: DownloadProgress

    def fetch(self, file: RemoteFile, partial: Path, target: Path) -> None:
        """Fetch what is missing in `partial`, check it, and rename it to `target`.

        Raises HubUnreachableError if the download stops again and again without new bytes; those received stay in
        `partial`. Raises HubError if the content is not what the hub's own listing says; then `partial` is removed.
        """
        breaks = 0
        while True:
            before = partial.stat().st_size if partial.is_file() else 0
            try:
                digest = self._fetch_rest(file, partial)
                break
            except HubUnreachableError as error:
                breaks = 1 if partial.stat().st_size > before else breaks + 1
                if breaks >= MAX_BREAKS:
                    raise HubUnreachableError(
                        f"{self.reference.repo}: the download of {file.name} stopped: {error}; the bytes received are "
                        "kept: start again to resume it"
                    ) from error
                logger.warning("%s: the download of %s stopped, resuming: %s", self.reference.repo, file.name, error)
                self.hub.wait(min(2.0 ** (breaks - 1), _MAX_WAIT_S))
        if digest != file.blob:
            self._refuse(partial, f"{file.name} has the hash {digest}, and the hub's listing says {file.blob}")
        move_into_place(partial, target)

    def _fetch_rest(self, file: RemoteFile, partial: Path) -> str:
        """The hash of the whole content. Raises HubUnreachableError if the download stops early."""
        with partial.open("a+b") as out:
            content = _Partial(out, file)
            if content.size < file.size:
                self._append_rest(file, content)
        if content.size < file.size:
            raise HubUnreachableError(f"{content.size:,} of {file.size:,} bytes were received")
        if content.size > file.size:
            self._refuse(partial, f"{file.name} is longer than the {file.size:,} bytes of the hub's listing")
        return content.digest

    def _append_rest(self, file: RemoteFile, content: _Partial) -> None:
        with self.hub.stream(self.reference, self.commit, file.name, content.size) as stream:
            if stream.start != content.size:  # the server does not resume: it sends the file from its start
                self.progress.advance(-content.size)
                content.restart()
            for chunk in stream.chunks:
                content.append(chunk)
                self.progress.advance(len(chunk))
                if content.size > file.size:
                    return

    def _refuse(self, partial: Path, fault: str) -> None:
        """Remove the received bytes. Raises HubError."""
        partial.unlink()
        raise HubError(f"{self.reference.repo}: {fault}; it was removed: start again to download it")
