"""Packed files: what they hold, that they compute what their source does, and which sources and targets are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from intaglio.base_model import BaseModel
from intaglio.errors import ModelFormatError, PackingError
from intaglio.model.loader import load_gemma
from intaglio.model.packing.pack import pack, verify
from intaglio.model.quantize import quantize
from intaglio.model.weights import open_checkpoint
from intaglio.ops import QuantizedFormat
from intaglio.ops.cpu import CpuOps
from intaglio.settings import load_settings
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_gguf, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

FORMATS: tuple[QuantizedFormat, ...] = ("w8", "w5", "w4")
IDS = [2, *range(5, 40)]


def hf_folder(path: Path, family: Family = "gemma3_text") -> Path:
    config = tiny_config(family, vocab_size=512, hidden_size=64)
    write_hf_folder(path, config, random_weights(config, 3), dtype="bfloat16", shards=2)
    write_tokenizer_json(path / "tokenizer.json", tiny_pieces(512))
    (path / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
    return path


def gguf_file(path: Path, types: str = "F32") -> Path:
    config = tiny_config("gemma2", vocab_size=512, hidden_size=64)
    return write_gguf(path, config, random_weights(config, 3), types)


def logits(path: Path, fmt: str = "auto") -> np.ndarray:
    ops = CpuOps(1)
    return run_prompts(load_gemma(path, ops, fmt), [Prompt(IDS)], ops=ops)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_folder_computes_what_the_folder_does_in_that_format(
    tmp_path: Path, family: Family, fmt: QuantizedFormat
) -> None:
    folder = hf_folder(tmp_path / "model", family)
    found = pack(folder, tmp_path / "packed", fmt)
    assert found.num_bytes == (tmp_path / "packed").stat().st_size
    assert np.array_equal(logits(tmp_path / "packed"), logits(folder, fmt))


@pytest.mark.parametrize("types", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_packed_gguf_file_computes_what_the_file_does(tmp_path: Path, types: str, fmt: QuantizedFormat) -> None:
    source = gguf_file(tmp_path / "model.gguf", types)
    pack(source, tmp_path / "packed", fmt)
    assert np.array_equal(logits(tmp_path / "packed"), logits(source, fmt))


def test_the_file_needs_nothing_of_its_source(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    settings = load_settings(cache_dir=tmp_path / "cache")
    before = BaseModel.open(folder, settings)
    pack(folder, tmp_path / "packed", "w4")
    folder.rename(tmp_path / "elsewhere")
    after = BaseModel.open(tmp_path / "packed", settings)
    assert after.config == before.config
    assert after.tokenizer.digest == before.tokenizer.digest
    assert after.tokenizer.stop_ids == before.tokenizer.stop_ids
    assert 7 in after.tokenizer.stop_ids  # of generation_config.json
    assert after.is_quantized


def test_the_tokenizer_of_a_gguf_file_is_packed_with_it(tmp_path: Path) -> None:
    source = gguf_file(tmp_path / "model.gguf")
    settings = load_settings(cache_dir=tmp_path / "cache")
    before = BaseModel.open(source, settings)
    pack(source, tmp_path / "packed", "w8")
    source.unlink()
    after = BaseModel.open(tmp_path / "packed", settings)
    assert (after.config, after.tokenizer.digest) == (before.config, before.tokenizer.digest)


def test_any_reader_of_safetensors_opens_the_file(tmp_path: Path) -> None:
    pack(hf_folder(tmp_path / "model"), tmp_path / "packed", "w4")
    with safe_open(tmp_path / "packed", "numpy") as file:
        assert json.loads(file.metadata()["contents"])["fmt"] == "w4"
        config = file.get_tensor("files/config.json").tobytes()
        assert json.loads(config)["model_type"] == "gemma3_text"
        assert file.get_tensor("model.norm.weight").dtype == np.float32


def test_the_embedding_has_eight_bits_and_the_matrices_those_of_the_format(tmp_path: Path) -> None:
    pack(hf_folder(tmp_path / "model"), tmp_path / "packed", "w4")
    with open_checkpoint(tmp_path / "packed") as checkpoint:
        assert checkpoint.info("model.embed_tokens.weight").dtype == "Q8_0"
        raw = checkpoint.raw("model.layers.0.mlp.up_proj.weight")
        assert raw.dtype == "Q4_1"
        kept = quantize(raw, "w4")
    with open_checkpoint(tmp_path / "model") as source:
        first = quantize(source.raw("model.layers.0.mlp.up_proj.weight"), "w4")
    assert np.array_equal(kept.values, first.values)
    assert np.array_equal(kept.scales, first.scales)
    assert first.minima is not None
    assert np.array_equal(kept.minima, first.minima)


def test_a_packed_file_may_be_served_with_more_bits(tmp_path: Path) -> None:
    pack(hf_folder(tmp_path / "model"), tmp_path / "packed", "w4")
    assert np.abs(logits(tmp_path / "packed", "f32") - logits(tmp_path / "packed")).max() < 1


@pytest.mark.parametrize("name", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight", "files/tokenizer.json"])
def test_a_damaged_tensor_is_named_when_it_is_used_and_by_verify(tmp_path: Path, name: str) -> None:
    packed = tmp_path / "packed"
    pack(hf_folder(tmp_path / "model"), packed, "w8")
    assert verify(packed) == len(open_checkpoint(packed).names())
    content = bytearray(packed.read_bytes())
    length = int.from_bytes(content[:8], "little")
    start, stop = json.loads(content[8 : 8 + length])[name]["data_offsets"]
    content[8 + length + (start + stop) // 2] ^= 1
    packed.write_bytes(content)
    for use in (lambda: load_gemma(packed, CpuOps(1)), lambda: verify(packed)):
        with pytest.raises(ModelFormatError, match=rf"packed: tensor '{re.escape(name)}' is damaged"):
            use()


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(hf_folder(tmp_path / "model"), packed, "w8")
    packed.write_bytes(packed.read_bytes()[:-100])
    with pytest.raises(ModelFormatError, match="cut short"):
        open_checkpoint(packed)


def test_an_empty_file_beside_the_weights_is_packed_too(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    (folder / "special_tokens_map.json").write_text("")
    pack(folder, tmp_path / "packed", "w8", progress=lambda _done, _all: None)
    with open_checkpoint(tmp_path / "packed") as checkpoint:
        assert checkpoint.packed is not None
        assert checkpoint.packed.files["special_tokens_map.json"] == b""


def test_packing_again_writes_nothing_and_other_files_are_not_replaced(tmp_path: Path) -> None:
    folder, packed = hf_folder(tmp_path / "model"), tmp_path / "packed"
    pack(folder, packed, "w8")
    before = packed.stat()
    assert pack(folder, packed, "w8").was_there
    assert packed.stat().st_mtime_ns == before.st_mtime_ns
    with pytest.raises(PackingError, match=r"exists and was packed from another source or with other options; --force"):
        pack(folder, packed, "w4")
    assert not pack(folder, packed, "w4", force=True).was_there
    (tmp_path / "letter").write_text("dear reader")
    with pytest.raises(PackingError, match="letter exists and is not a packed file; --force replaces it"):
        pack(folder, tmp_path / "letter", "w4")
    assert (tmp_path / "letter").read_text() == "dear reader"


def test_sources_that_cannot_be_packed_are_refused(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "model")
    pack(folder, tmp_path / "packed", "w8")
    with pytest.raises(PackingError, match="packed is already packed in w8; give the source of that file"):
        pack(tmp_path / "packed", tmp_path / "again", "w4")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ModelFormatError, match="'gptq'; take the model's unquantized folder"):
        pack(folder, tmp_path / "again", "w4")
    with pytest.raises(ModelFormatError, match="nowhere does not exist"):
        pack(tmp_path / "nowhere", tmp_path / "again", "w4")
    with pytest.raises(PackingError, match="there is no folder"):
        pack(folder, tmp_path / "no" / "again", "w4")
    ragged = tiny_config("gemma", hidden_size=48)
    with pytest.raises(PackingError, match="rows of 48 numbers; packed files hold whole groups of 32"):
        pack(write_hf_folder(tmp_path / "r", ragged, random_weights(ragged)), tmp_path / "again", "w4")
    assert not (tmp_path / "again").exists()


def test_verify_takes_packed_files_only(tmp_path: Path) -> None:
    with pytest.raises(PackingError, match="is not a file of `intaglio pack`"):
        verify(gguf_file(tmp_path / "model.gguf"))


def test_progress_counts_the_bytes_of_the_source(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    pack(hf_folder(tmp_path / "model"), tmp_path / "packed", "w4", progress=lambda *now: seen.append(now))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
