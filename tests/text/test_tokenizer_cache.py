from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from intaglio.text import load_tokenizer
from intaglio.text.tokenizer_cache import PreparedTokenizer, prepare_cached
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

PREPARED = PreparedTokenizer(model=b"m" * 133, control_ids={"<bos>": 2}, bos_id=2, eos_id=1, pad_id=None)


class Maker:
    """Makes the same thing each time and counts."""

    def __init__(self) -> None:
        self.num_made = 0

    def __call__(self) -> PreparedTokenizer:
        self.num_made += 1
        return PREPARED


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text("as it is")
    return path


def test_second_time_comes_from_the_cache(source: Path, tmp_path: Path) -> None:
    make = Maker()
    cache_dir = tmp_path / "made" / "when needed"
    assert (
        prepare_cached([source], None, cache_dir, make) == prepare_cached([source], None, cache_dir, make) == PREPARED
    )
    assert make.num_made == 1
    assert [file.suffix for file in cache_dir.iterdir()] == [".bin"]  # nothing written aside is left


def test_no_cache_folder_means_no_cache(source: Path) -> None:
    make = Maker()
    assert prepare_cached([source], None, None, make) == prepare_cached([source], None, None, make) == PREPARED
    assert make.num_made == 2


def test_changed_source_is_read_again(source: Path, tmp_path: Path) -> None:
    make = Maker()
    prepare_cached([source], None, tmp_path / "cache", make)
    source.write_text("another length")
    prepare_cached([source], None, tmp_path / "cache", make)
    status = source.stat()
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    prepare_cached([source], None, tmp_path / "cache", make)
    assert make.num_made == 3


@pytest.mark.parametrize("damage", ["empty", "cut", "first byte", "digest", "last byte"])
def test_damaged_cache_is_made_again_and_mended(
    source: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    cache_dir = tmp_path / "cache"
    prepare_cached([source], None, cache_dir, make)
    (file,) = cache_dir.iterdir()
    data = bytearray(file.read_bytes())
    if damage in ("empty", "cut"):
        del data[0 if damage == "empty" else -1 :]
    else:
        data[{"first byte": 0, "digest": 30, "last byte": -1}[damage]] ^= 1
    file.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert prepare_cached([source], None, cache_dir, make) == PREPARED
    assert "is damaged and is made again" in caplog.text
    assert prepare_cached([source], None, cache_dir, make) == PREPARED
    assert make.num_made == 2


def test_a_cache_that_cannot_be_written_only_logs_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_tokenizer_json(tmp_path / "tokenizer.json", tiny_pieces())
    (tmp_path / "in the way").write_text("a file, no folder")
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(tmp_path, cache_dir=tmp_path / "in the way")
    assert tokenizer.decode(tokenizer.encode("user")) == "user"
    assert "is not cached in" in caplog.text


def test_tokenizer_from_the_cache_is_the_same(tmp_path: Path) -> None:
    write_tokenizer_json(tmp_path / "tokenizer.json", tiny_pieces())
    first, second = (load_tokenizer(tmp_path, cache_dir=tmp_path / "cache", eos_ids=[20]) for _ in range(2))
    text = "<start_of_turn>user\n  the 日本 model\x00</td><end_of_turn>"
    assert first.encode(text, special=True) == second.encode(text, special=True)
    assert first.stop_ids == second.stop_ids == {1, 8, 20}
    assert [first.piece_bytes(i) for i in range(512)] == [second.piece_bytes(i) for i in range(512)]
