from __future__ import annotations

import hashlib
import resource
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from intaglio.finetunes.records import StoredFile
from intaglio.finetunes.storage.blobs import FileStore, folder_key

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def keep(files: FileStore, *chunks: bytes) -> StoredFile:
    with files.staging.new_file() as staged:
        for chunk in chunks:
            staged.write(chunk)
        files.add_blob(staged)
        return StoredFile(staged.sha256, staged.size_bytes, NOW)


def add_folder(files: FileStore, **contents: StoredFile) -> str:
    with files.staging.new_folder({name: files.blob_path(file.sha256) for name, file in contents.items()}) as folder:
        files.add_folder(folder, contents)
    return folder_key(contents)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_is_named_by_its_content(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    stored = keep(files, b"one ", b"", b"two")
    assert stored == StoredFile(hashlib.sha256(b"one two").hexdigest(), 7, NOW)
    assert files.blob_path(stored.sha256).read_bytes() == b"one two"
    assert keep(files, b"one two") == stored


def test_a_staged_file_that_is_not_kept_is_removed(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    with pytest.raises(RuntimeError), files.staging.new_file() as staged:
        staged.write(b"half")
        raise RuntimeError
    with pytest.raises(RuntimeError), files.staging.new_folder({}) as folder:
        assert folder.is_dir()
        raise RuntimeError
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize("chunk", [b"x" * 100, b"x" * 100_000], ids=["small", "large"])
def test_a_file_that_does_not_fit_on_the_disk_is_removed_and_frees_its_space(tmp_path: Path, chunk: bytes) -> None:
    files = FileStore(tmp_path)
    with pytest.raises(OSError, match="File too large"), largest_file(150_000), files.staging.new_file() as staged:
        while staged.size_bytes < 300_000:
            staged.write(chunk)
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_folder_of_links_is_kept_once_per_content(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    stored = {"b": keep(files, b"2"), "a": keep(files, b"1")}
    (key,) = {add_folder(files, **stored) for _ in range(2)}
    assert (files.folder_path(key) / "a").read_bytes() == b"1"
    assert (files.folder_path(key) / "a").samefile(files.blob_path(stored["a"].sha256))


def test_a_content_is_on_the_disk_once_in_however_many_folders(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    keys = []
    for config in (b"one config", b"another", b"one config"):
        with files.staging.new_file() as weights:
            weights.write(b"the same weights")
            stored = {"c": keep(files, config), "w": StoredFile(weights.sha256, weights.size_bytes, NOW)}
            with files.staging.new_folder({"c": files.blob_path(stored["c"].sha256), "w": weights.path}) as folder:
                files.add_blob(weights)
                files.add_folder(folder, stored)
        keys.append(folder_key(stored))
    assert len(set(keys)) == 2
    copies = [path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file() and path.name != "files.lock"]
    assert (len(copies), len(set(copies))) == (7, 3)  # three blobs, and two folders with two links each


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, other = FileStore(tmp_path), FileStore(tmp_path)
    mkdir = Path.mkdir
    swept = []

    def mkdir_and_sweep(path: Path) -> None:
        mkdir(path)
        if not swept:
            with other.lock():
                swept.append(other.collect(lambda *_: (set(), set())).num_removed)

    monkeypatch.setattr(Path, "mkdir", mkdir_and_sweep)
    with files.staging.new_folder({}) as folder:
        assert folder.is_dir()
    assert swept == [1]


def test_sweep_removes_only_unreferenced_files(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    wanted, unwanted = keep(files, b"wanted"), keep(files, b"unwanted")
    key = add_folder(files, a=wanted)
    (tmp_path / "incoming" / "left").write_bytes(b"x")
    (tmp_path / "adapters" / "left").mkdir()

    def unused(blobs: Iterable[str], folders: Iterable[str]) -> tuple[set[str], set[str]]:
        return set(blobs) - {wanted.sha256}, set(folders) - {key}

    with files.lock():
        assert files.collect(unused) == (3, False)
    assert files.blob_path(wanted.sha256).exists()
    assert not files.blob_path(unwanted.sha256).exists()
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [key]


def test_a_removed_file_can_be_read_to_its_end_by_open_readers(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    stored = keep(files, b"content")
    key = add_folder(files, a=stored)
    with (files.folder_path(key) / "a").open("rb") as in_folder, files.blob_path(stored.sha256).open("rb") as blob:
        files.remove({stored.sha256}, {key})
        assert (in_folder.read(), blob.read()) == (b"content", b"content")
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "files.lock"] == []
    files.remove({stored.sha256}, {key})  # gone already is no fault


def test_only_one_thread_places_files_at_a_time(tmp_path: Path) -> None:
    one, other = FileStore(tmp_path), FileStore(tmp_path)
    inside, order = threading.Event(), []

    def second() -> None:
        inside.set()
        with other.lock():
            order.append("second")

    thread = threading.Thread(target=second)
    with one.lock():
        thread.start()
        assert inside.wait(10)
        thread.join(0.05)  # it cannot get on; were it let in, it would by now nearly always
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
