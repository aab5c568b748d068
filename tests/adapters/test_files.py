from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from intaglio.adapters.files import FileStore
from intaglio.adapters.records import StoredFile


def keep(files: FileStore, *chunks: bytes) -> StoredFile:
    with files.stage() as staged:
        for chunk in chunks:
            staged.write(chunk)
        return files.keep(staged)


def test_a_file_is_named_by_its_content(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    stored = keep(files, b"one ", b"", b"two")
    assert stored == StoredFile(hashlib.sha256(b"one two").hexdigest(), 7)
    assert files.blob_path(stored.sha256).read_bytes() == b"one two"
    assert keep(files, b"one two") == stored


def test_what_is_not_kept_is_gone(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    with pytest.raises(RuntimeError), files.stage() as staged:
        staged.write(b"half")
        raise RuntimeError
    with pytest.raises(RuntimeError), files.assembled({}) as folder:
        assert folder.is_dir()
        raise RuntimeError
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_folder_of_links_is_kept_once_per_content(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    stored = {"b": keep(files, b"2"), "a": keep(files, b"1")}
    paths = {name: files.blob_path(file.sha256) for name, file in stored.items()}
    keys = set()
    for _ in range(2):
        with files.assembled(paths) as folder:
            keys.add(files.keep_folder(folder, stored))
    (key,) = keys
    assert (files.folder_path(key) / "a").read_bytes() == b"1"
    assert (files.folder_path(key) / "a").samefile(paths["a"])


def test_sweep_removes_only_what_nobody_points_to(tmp_path: Path) -> None:
    files = FileStore(tmp_path)
    wanted, unwanted = keep(files, b"wanted"), keep(files, b"unwanted")
    with files.assembled({"a": files.blob_path(wanted.sha256)}) as folder:
        key = files.keep_folder(folder, {"a": wanted})
    (tmp_path / "incoming" / "left").write_bytes(b"x")
    (tmp_path / "adapters" / "left").mkdir()
    assert files.sweep({wanted.sha256}, {key}) == 3
    assert files.blob_path(wanted.sha256).exists()
    assert not files.blob_path(unwanted.sha256).exists()
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [key]
