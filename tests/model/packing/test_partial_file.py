"""Runs that end early: killed, or on a full disk. The next run continues after the last intact tensor."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from intaglio.errors import PackingError, StorageFullError
from intaglio.model.packing.pack import pack
from tests.helpers.small_disk import small_disk
from tests.model.packing.test_pack import hf_folder


class EndedEarlyError(Exception):
    pass


def pack_until(folder: Path, target: Path, share: float) -> None:
    """Pack, and end once this share of the source is done."""

    def progress(done: int, total: int) -> None:
        if done >= share * total:
            raise EndedEarlyError

    with pytest.raises(EndedEarlyError):
        pack(folder, target, "w4", progress=progress)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hf_folder(tmp_path / "model")


def whole(folder: Path) -> bytes:
    target = folder.parent / "whole"
    pack(folder, target, "w4")
    return target.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_a_run_that_ended_is_continued_to_the_same_bytes(folder: Path, share: float) -> None:
    target = folder.parent / "packed"
    pack_until(folder, target, share)
    assert not target.exists()
    found = pack(folder, target, "w4")
    assert (found.num_resumed > 0) == (share > 0)
    assert target.read_bytes() == whole(folder)
    assert not list(folder.parent.glob("packed.part*"))


def test_a_killed_process_is_continued(folder: Path) -> None:
    target = folder.parent / "packed"
    script = (
        "import os, signal; from pathlib import Path; from intaglio.model.packing.pack import pack\n"
        "def progress(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pack(Path({str(folder)!r}), Path({str(target)!r}), 'w4', progress=progress)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -signal.SIGKILL
    assert pack(folder, target, "w4").num_resumed > 0
    assert target.read_bytes() == whole(folder)


def test_damaged_tensors_of_an_earlier_run_are_packed_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = folder.parent / "packed"
    pack_until(folder, target, 0.7)
    part = folder.parent / "packed.part"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        found = pack(folder, target, "w4")
    assert "is damaged; packing resumes there" in caplog.text
    assert found.num_resumed > 0
    assert target.read_bytes() == whole(folder)


@pytest.mark.parametrize("line", [b'{"name": "model.embed_tok', b"\xff\n", b'["a list"]\n'])
def test_a_journal_whose_end_is_cut_off_or_wrong_is_used_up_to_there(folder: Path, line: bytes) -> None:
    target = folder.parent / "packed"
    pack_until(folder, target, 0.5)
    with (folder.parent / "packed.part.journal").open("ab") as file:
        file.write(line)
    assert pack(folder, target, "w4").num_resumed > 0
    assert target.read_bytes() == whole(folder)


def test_what_another_source_or_format_left_behind_is_not_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = folder.parent / "packed"
    pack_until(folder, target, 0.5)
    os.utime(folder / "config.json", (1, 1))
    with caplog.at_level(logging.WARNING):
        assert pack(folder, target, "w4").num_resumed == 0
    assert "is of another source, format or calibration; packing starts anew" in caplog.text


def test_two_processes_do_not_write_one_file(folder: Path) -> None:
    target = folder.parent / "packed"

    def progress(done: int, total: int) -> None:
        with pytest.raises(PackingError, match="is being written by another process"):
            pack(folder, target, "w4")

    pack(folder, target, "w4", progress=progress)


def test_a_disk_with_too_little_space_is_refused_before_anything_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    target = folder.parent / "packed"
    with pytest.raises(StorageFullError, match=r"packed needs \d+ MB more, and its disk has 0 MB free"):
        pack(folder, target, "w4")
    assert not list(folder.parent.glob("packed*"))


def test_a_disk_that_fills_up_loses_nothing(folder: Path, tmp_path: Path) -> None:
    size = len(whole(folder))
    with small_disk(tmp_path / "disk", 4 * size) as disk:
        target = disk / "packed"
        ballast = disk / "ballast"

        def fill(done: int, total: int) -> None:
            if done > total // 2 and not ballast.exists():
                ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 4096))

        with pytest.raises(
            StorageFullError, match=r"MB of .* kept in packed\.part; free some space, and the same command"
        ):
            pack(folder, target, "w4", progress=fill)
        ballast.unlink()
        assert pack(folder, target, "w4").num_resumed > 0
        assert target.read_bytes() == (folder.parent / "whole").read_bytes()


def test_a_limit_of_file_sizes_is_named_and_nothing_is_lost(folder: Path) -> None:
    target = folder.parent / "packed"
    size = len(whole(folder))
    script = (
        "import resource; from pathlib import Path; from intaglio.model.packing.pack import pack\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, {size // 2}))\n"
        f"pack(Path({str(folder)!r}), Path({str(target)!r}), 'w4')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "StorageFullError: no space for" in ended.stderr
    assert "File too large" in ended.stderr
    assert pack(folder, target, "w4").num_resumed > 0
    assert target.read_bytes() == (folder.parent / "whole").read_bytes()


@pytest.mark.parametrize("name", ["packed.part", "packed.part.journal"])
def test_a_file_that_cannot_be_written_is_named_with_the_reason(folder: Path, name: str) -> None:
    (folder.parent / name).mkdir()
    with pytest.raises(PackingError, match="packed cannot be written: Is a directory"):
        pack(folder, folder.parent / "packed", "w4")
