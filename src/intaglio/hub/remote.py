"""Requests to the hub over HTTP, through `huggingface_hub`, whose exceptions become HubError.

The library reads the token (HF_TOKEN, or the file of `hf auth login`); it is in no message and no log line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from intaglio.errors import HubError, HubNotInstalledError, HubUnreachableError
from intaglio.hub.reference import HubReference
from intaglio.hub.selection import is_safe
from intaglio.version import __version__

_TIMEOUT_S = 15.0
_CHUNK_BYTES = 1 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_TRY_LATER = (408, 429)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository.

    blob  its hash, and its name in the cache: SHA-256 of a large file, git's SHA-1 of another
    """

    name: str
    size: int
    blob: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit. architecture: of its GGUF files, as the hub read it; None if the hub names none."""

    commit: str
    files: dict[str, RemoteFile]
    architecture: str | None


@dataclass(frozen=True, slots=True)
class FileStream:
    """The rest of a file as it is received. start: the offset of its first byte, 0 if the server ignores ranges."""

    start: int
    chunks: Iterator[bytes]


class Hub:
    """One hub.

    endpoint, cache_dir  None is what the library takes from the environment
    wait                 called with the seconds to wait before a download is resumed

    Raises HubNotInstalledError without the package. Its methods raise HubUnreachableError if a later request may
    succeed, and HubError otherwise.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        cache_dir: Path | None = None,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self.wait = wait
        self._library = _library()
        self.endpoint: str = (endpoint or self._library.constants.ENDPOINT).rstrip("/")
        self.cache_dir = Path(cache_dir or self._library.constants.HF_HUB_CACHE).expanduser()
        self._api = self._library.HfApi(endpoint=self.endpoint, library_name="intaglio", library_version=__version__)

    def commit(self, reference: HubReference) -> str:
        """The commit of the reference's revision; if the hub cannot be reached, the one in the cache.

        It is also written to the cache, as by every program that uses huggingface_hub.
        """
        with self._faults(reference), self._foreign_responses():
            resolved = self._api.resolve_revision(reference.repo, revision=reference.revision, cache_dir=self.cache_dir)
        return _matching(_COMMIT, str(resolved.resolved), f"{reference.repo}: the commit")

    def listing(self, reference: HubReference, commit: str) -> Listing:
        """The files of a commit, with sizes and hashes."""
        with self._faults(reference), self._foreign_responses():
            info = self._api.model_info(reference.repo, revision=commit, files_metadata=True, timeout=_TIMEOUT_S)
        files = {}
        for one in info.siblings or ():
            if not is_safe(one.rfilename):
                raise HubError(f"{reference.repo} has a file {one.rfilename!r}, a path outside of the repository")
            blob = one.lfs.sha256 if one.lfs is not None else one.blob_id
            blob = _matching(_BLOB, str(blob), f"{reference.repo}: the hash of {one.rfilename}")
            files[one.rfilename] = RemoteFile(one.rfilename, int(one.size or 0), blob)
        gguf = info.gguf if isinstance(info.gguf, dict) else {}
        architecture = gguf.get("architecture")
        return Listing(commit, files, architecture if isinstance(architecture, str) else None)

    @contextmanager
    def stream(self, reference: HubReference, commit: str, name: str, start: int) -> Iterator[FileStream]:
        """A file from byte `start` on.

        Over plain HTTPS, also for files that the hub keeps in its Xet storage: that can be resumed.
        """
        utils = self._library.utils
        url = self._library.hf_hub_url(reference.repo, name, revision=commit, endpoint=self.endpoint)
        headers = utils.build_hf_headers(library_name="intaglio", library_version=__version__)
        headers["Accept-Encoding"] = "identity"  # a compressed response has no ranges
        if start:
            headers["Range"] = f"bytes={start}-"
        with (
            self._faults(reference),
            utils.get_session().stream("GET", url, headers=headers, timeout=_TIMEOUT_S) as response,
        ):
            utils.hf_raise_for_status(response)
            first = start if response.status_code == 206 else 0
            yield FileStream(first, response.iter_bytes(_CHUNK_BYTES))

    @contextmanager
    def _faults(self, reference: HubReference) -> Iterator[None]:
        import httpx2

        found = self._library.errors
        repo, page = reference.repo, f"{self.endpoint}/{reference.repo}"
        try:
            yield
        except found.GatedRepoError as error:
            raise HubError(f"{repo} is gated: {self._access(page)}") from error
        except found.RevisionNotFoundError as error:
            raise HubError(f"{repo} has no revision {reference.revision or 'main'!r}") from error
        except found.RepositoryNotFoundError as error:
            advice = "the token given has no access to it" if self._has_token else "if it is private, set HF_TOKEN"
            raise HubError(f"there is no repository {repo} at {self.endpoint}, or {advice}") from error
        except found.EntryNotFoundError as error:
            raise HubError(f"{repo} lists a file that it does not have: {type(error).__name__}") from error
        except (found.OfflineModeIsEnabled, found.RevisionResolutionError, httpx2.TransportError) as error:
            raise HubUnreachableError(f"the hub at {self.endpoint} cannot be reached ({_reason(error)})") from error
        except found.HfHubHTTPError as error:
            status = error.response.status_code
            if status >= 500 or status in _TRY_LATER:
                raise HubUnreachableError(f"the hub at {self.endpoint} answers with status {status}") from error
            if status in (401, 403):
                raise HubError(f"access to {repo} was refused (status {status}): {self._access(page)}") from error
            raise HubError(f"{repo}: the hub at {self.endpoint} answers with status {status}") from error

    @contextmanager
    def _foreign_responses(self) -> Iterator[None]:
        """Raises HubError in place of what the library raises for a response that is not the hub's JSON."""
        try:
            yield
        except self._library.errors.HfHubHTTPError:
            raise  # some of these are ValueErrors too
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HubError(f"{self.endpoint} does not answer as the Hugging Face hub does; see HF_ENDPOINT") from error

    @property
    def _has_token(self) -> bool:
        return self._library.get_token() is not None

    def _access(self, page: str) -> str:
        if self._has_token:
            return f"accept its terms at {page} with the account of the token in HF_TOKEN"
        return f"accept its terms at {page}, then set HF_TOKEN"


def _library() -> ModuleType:
    """huggingface_hub. Raises HubNotInstalledError with the command that installs it."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise HubNotInstalledError(
            "models of the Hugging Face hub need the package huggingface_hub: pip install 'intaglio[hub]'"
        ) from error
    return huggingface_hub


def _reason(error: BaseException) -> str:
    """Why the hub was not reached, in a few words."""
    inner: Any = error
    while inner is not None:
        if type(inner).__name__ == "OfflineModeIsEnabled":
            return "HF_HUB_OFFLINE is set"
        last, inner = inner, inner.__cause__
    return f"{type(last).__name__}: {str(last).splitlines()[0] if str(last) else 'no details'}"


def _matching(form: re.Pattern[str], value: str, what: str) -> str:
    """The value, which becomes a part of a path. Raises HubError if it is not of that form."""
    if not form.fullmatch(value):
        raise HubError(f"{what} is {value[:80]!r}; a hash in hexadecimal digits is needed")
    return value
