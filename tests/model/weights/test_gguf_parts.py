"""GGUF models in several files, written by the gguf package as llama.cpp's gguf-split does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from intaglio.base_model import BaseModel
from intaglio.errors import ModelFormatError
from intaglio.model.packed import packed_key
from intaglio.model.weights import open_checkpoint, part_paths
from intaglio.settings import load_settings
from tests.helpers.checkpoints import Vocabulary, random_weights, tiny_config, write_gguf
from tests.helpers.tokenizers import tiny_pieces

CONFIG = tiny_config("gemma3_text", vocab_size=512)
WEIGHTS = random_weights(CONFIG, 1)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    pieces = tiny_pieces(512)
    vocabulary = Vocabulary(pieces.tokens, pieces.scores, pieces.types)
    first = write_gguf(
        tmp_path / "model.gguf", CONFIG, WEIGHTS, "Q8_0", vocabulary, tensors_per_part=len(WEIGHTS) // 3 + 1
    )
    assert first.name == "model-00001-of-00003.gguf"
    return sorted(tmp_path.glob("*.gguf"))


@pytest.mark.parametrize("chosen", [0, 2, "folder"])
def test_all_parts_are_read_whichever_is_named(parts: list[Path], tmp_path: Path, chosen: int | str) -> None:
    path = tmp_path if isinstance(chosen, str) else parts[chosen]
    (tmp_path / "whole").mkdir()
    whole = write_gguf(tmp_path / "whole" / "model.gguf", CONFIG, WEIGHTS, "Q8_0")
    with open_checkpoint(path) as found, open_checkpoint(whole) as expected:
        assert sorted(found.names()) == sorted(expected.names())
        for name in expected.names():
            np.testing.assert_array_equal(found.tensor(name), expected.tensor(name))
    opened = BaseModel.open(path, load_settings(cache_dir=tmp_path / "cache"))
    assert opened.tokenizer.vocab_size == 512
    assert opened.config.num_layers == CONFIG["num_hidden_layers"]


def _remove(parts: list[Path]) -> None:
    parts[1].unlink()


def _exchange(parts: list[Path]) -> None:
    aside = parts[1].rename(parts[1].with_suffix(".aside"))
    parts[2].rename(parts[1])
    aside.rename(parts[2])


def _repeat(parts: list[Path]) -> None:
    shutil.copy(parts[0], parts[1])


def _rename(parts: list[Path]) -> None:
    for number, part in enumerate(parts):
        part.rename(part.with_name(f"part{number}.gguf"))
    (parts[0].with_name("part0.gguf")).rename(parts[0].with_name("model.gguf"))


@pytest.mark.parametrize(
    ("damage", "named", "complaint"),
    [
        (_remove, "model-00001-of-00003.gguf", r"is one of 3 parts; missing: model-00002-of-00003\.gguf"),
        (_exchange, "model-00001-of-00003.gguf", r"part 2 of 3; its metadata say split\.no 2 \(from 0\)"),
        (_repeat, "model-00003-of-00003.gguf", r"part 2 of 3; its metadata say split\.no 0"),
        (_rename, "model.gguf", r"one of 3 parts .* NAME-00001-of-00003\.gguf"),
    ],
    ids=["one is missing", "two are exchanged", "one is there twice", "the names do not say it"],
)
def test_parts_that_do_not_make_a_model_are_refused_with_the_part(
    parts: list[Path], damage: Callable[[list[Path]], None], named: str, complaint: str
) -> None:
    damage(parts)
    with pytest.raises(ModelFormatError, match=complaint):
        open_checkpoint(parts[0].with_name(named))


@pytest.mark.parametrize("name", ["model-00001-of-00000.gguf", "model-00004-of-00003.gguf", "model-1-of-3.gguf"])
def test_a_name_that_is_not_that_of_a_part_names_a_file_alone(tmp_path: Path, name: str) -> None:
    path = write_gguf(tmp_path / "one.gguf", CONFIG, WEIGHTS).rename(tmp_path / name)
    assert part_paths(path) == [path]
    with open_checkpoint(path) as checkpoint:
        assert sorted(checkpoint.names()) == sorted(WEIGHTS)


def test_packed_weights_belong_to_every_part(parts: list[Path]) -> None:
    before = packed_key(parts[0], "auto", "kernels")
    assert packed_key(parts[2], "auto", "kernels") == before
    parts[1].write_bytes(parts[1].read_bytes() + b"\0")
    assert packed_key(parts[0], "auto", "kernels") != before
