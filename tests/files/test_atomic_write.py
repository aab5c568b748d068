"""The old content or the new one, whatever fails in between, and in an order that a power cut cannot undo."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from intaglio.files.atomic_write import PRIVATE, atomic_write, move_into_place


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


def write(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"new")


def keep(path: Path) -> None:
    aside = path.with_name("made-by-a-library")
    aside.write_bytes(b"new")
    move_into_place(aside, path)


@pytest.mark.parametrize("act", [write, keep])
def test_the_file_is_synced_then_renamed_then_the_folder_is_synced(
    act: object, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        content = "" if is_folder else Path(f"/proc/self/fd/{descriptor}").read_bytes().decode()
        steps.append("sync folder" if is_folder else f"sync {content}")
        fsync(descriptor)

    def watched_replace(aside: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(aside, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    act(path)  # type: ignore[operator]
    assert steps == ["sync new", "rename", "sync folder"]
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", [RuntimeError("the caller failed"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(path: Path, fault: BaseException) -> None:
    with pytest.raises(type(fault)), atomic_write(path) as file:
        file.write(b"half of it")
        raise fault
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def disk_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        write(path)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_process_leaves_the_old_file_and_one_temporary_file_with_the_prefix(path: Path) -> None:
    child = os.fork()
    if child == 0:
        with atomic_write(path, aside_prefix=".writing-") as file:
            file.write(b"half of it")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    os.waitpid(child, 0)
    assert path.read_bytes() == b"old"
    (aside,) = (other for other in path.parent.iterdir() if other != path)
    assert aside.name.startswith(".writing-")
    write(path)
    assert path.read_bytes() == b"new"


def test_what_a_killed_process_left_under_a_fixed_name_is_overwritten(path: Path) -> None:
    aside = path.with_name("file.partial")
    aside.write_bytes(b"longer than what is written now")
    with atomic_write(path, aside=aside) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("mode", "expected"), [(PRIVATE, 0o600), (0o666, 0o640)])
def test_the_file_has_the_mode_asked_for_less_the_umask(path: Path, mode: int, expected: int) -> None:
    umask = os.umask(0o027)
    try:
        with atomic_write(path, mode=mode) as file:
            file.write(b"new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == expected
