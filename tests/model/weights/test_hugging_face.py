"""Hugging Face folders: dtypes, shards, multimodal wrappers, the tied head, and invalid folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from intaglio.errors import ModelFormatError
from intaglio.model.config import config_from_hf
from intaglio.model.weights import check_shapes, open_checkpoint
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_hf_folder

Q0 = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", [1, 3])
def test_float32_folder_gives_back_what_was_written(family: Family, shards: int, tmp_path: Path) -> None:
    config = tiny_config(family)
    weights = random_weights(config, seed=shards)
    with open_checkpoint(write_hf_folder(tmp_path, config, weights, shards=shards)) as checkpoint:
        assert checkpoint.source == "safetensors"
        assert not checkpoint.norm_includes_one
        assert checkpoint.raw_config == config | {"dtype": "float32"}
        check_shapes(checkpoint, config_from_hf(checkpoint.raw_config).tensor_shapes())
        assert set(checkpoint.names()) == set(weights)
        for name, values in weights.items():
            assert checkpoint.info(name).shape == values.shape
            np.testing.assert_array_equal(checkpoint.tensor(name), values)


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "BF16"), ("float16", "F16")])
def test_half_precision_is_widened_exactly(dtype: Literal["bfloat16", "float16"], stored: str, tmp_path: Path) -> None:
    config = tiny_config("gemma2")
    weights = random_weights(config)
    checkpoint = open_checkpoint(write_hf_folder(tmp_path, config, weights, dtype))
    assert checkpoint.info(Q0).dtype == stored
    values = checkpoint.tensor(Q0)
    relative = np.abs(values - weights[Q0]) / np.abs(weights[Q0])
    assert 0 < relative.max() <= {"BF16": 2**-8, "F16": 2**-11}[stored]
    if stored == "BF16":
        assert not np.any(values.view(np.uint32) & 0xFFFF)


def wrapped(name: str, style: str) -> str:
    """A name as the multimodal Gemma 3 stores it: before transformers 4.52 and after."""
    if style == "old":
        return f"language_model.{name}"
    return name.replace("model.", "model.language_model.", 1)


@pytest.mark.parametrize("style", ["old", "new"])
def test_text_part_of_a_multimodal_gemma_3_is_found_and_its_vision_part_left_out(style: str, tmp_path: Path) -> None:
    text = tiny_config("gemma3_text")
    weights = random_weights(text)
    stored = {wrapped(name, style): values for name, values in weights.items()}
    outer = "" if style == "old" else "model."
    stored[f"{outer}vision_tower.vision_model.embeddings.patch_embedding.weight"] = np.ones((2, 3, 4, 4), np.float32)
    stored[f"{outer}multi_modal_projector.mm_soft_emb_norm.weight"] = np.ones(5, np.float32)
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 5}}
    checkpoint = open_checkpoint(write_hf_folder(tmp_path, config, stored))
    check_shapes(checkpoint, config_from_hf(checkpoint.raw_config).tensor_shapes())
    np.testing.assert_array_equal(checkpoint.tensor(Q0), weights[Q0])


def test_vision_tensors_in_a_text_model_are_refused(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text")
    weights = random_weights(config) | {"vision_tower.patch.weight": np.ones((2, 2), np.float32)}
    with pytest.raises(ModelFormatError, match=r"'vision_tower\.patch\.weight' is not part of a gemma3 model"):
        open_checkpoint(write_hf_folder(tmp_path, config, weights))


def test_head_that_repeats_the_embedding_is_dropped(tmp_path: Path) -> None:
    config = tiny_config("gemma")
    weights = random_weights(config)
    weights["lm_head.weight"] = weights[EMBEDDING]
    assert "lm_head.weight" not in open_checkpoint(write_hf_folder(tmp_path, config, weights)).names()


@pytest.mark.parametrize("says", ["tied", "nothing"])
def test_head_of_its_own_is_refused_when_the_config_ties_it(says: str, tmp_path: Path) -> None:
    config = tiny_config("gemma")
    weights = random_weights(config)
    weights["lm_head.weight"] = weights[EMBEDDING] + np.float32(1)
    if says == "nothing":
        del config["tie_word_embeddings"]
    with pytest.raises(ModelFormatError, match=r"'lm_head\.weight' differs from the embedding"):
        open_checkpoint(write_hf_folder(tmp_path, config, weights))


def test_head_of_its_own_is_kept_when_the_config_unties_it(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text", tie_word_embeddings=False)
    weights = random_weights(config)
    checkpoint = open_checkpoint(write_hf_folder(tmp_path, config, weights))
    check_shapes(checkpoint, config_from_hf(checkpoint.raw_config).tensor_shapes())
    np.testing.assert_array_equal(checkpoint.tensor("lm_head.weight"), weights["lm_head.weight"])


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def move_tensor(folder: Path, file: str) -> None:
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({EMBEDDING: file}))


FIRST, LAST = "model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is not valid JSON"),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), "a JSON object is needed"),
    "config of 2 MB": (lambda folder: (folder / "config.json").write_text(" " * (2 << 20)), "has more than"),
    "another model": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(model_type="llama")),
        "model_type is 'llama'",
    ),
    "a relative of Gemma": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(model_type="gemma3n")),
        "Gemma 3n, which has embeddings in every layer",
    ),
    "an embedding model": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(use_bidirectional_attention=True)),
        "embedding models are not supported",
    ),
    "model type a list": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(model_type=["gemma"])),
        "model_type is ['gemma']",
    ),
    "wrapper without text": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(model_type="gemma3")),
        "text_config",
    ),
    "names of another family": (
        lambda folder: edit_json(folder / "config.json", lambda c: c.update(model_type="gemma")),
        "layernorm.weight' is not part of a gemma model",
    ),
    "shard missing": (lambda folder: (folder / LAST).unlink(), f"{LAST}, which is missing"),
    "shard truncated": (lambda folder: (folder / LAST).write_bytes((folder / LAST).read_bytes()[:-1]), LAST),
    "index not JSON": (lambda folder: (folder / INDEX).write_text("x"), f"{INDEX} is not valid JSON"),
    "no weight_map": (lambda folder: (folder / INDEX).write_text("{}"), "weight_map"),
    "empty weight_map": (lambda folder: (folder / INDEX).write_text('{"weight_map": {}}'), "weight_map"),
    "tensor in another shard": (lambda folder: move_tensor(folder, LAST), f"places tensor '{EMBEDDING}' in {LAST}"),
    "tensor not in the index": (
        lambda folder: edit_json(folder / INDEX, lambda index: index["weight_map"].pop(EMBEDDING)),
        f"does not place tensor '{EMBEDDING}' in {FIRST}",
    ),
    "path out of the folder": (lambda folder: move_tensor(folder, f"../{FIRST}"), "not a .safetensors file of this"),
    "absolute path": (lambda folder: move_tensor(folder, f"/etc/{FIRST}"), "not a .safetensors file of this"),
    "shard a pickle": (lambda folder: move_tensor(folder, "pytorch_model.bin"), "not a .safetensors file of this"),
    "shard not a string": (lambda folder: move_tensor(folder, 3), "not a .safetensors file of this"),  # type: ignore[arg-type]
    "shard name too long": (lambda folder: move_tensor(folder, "a" * 5000 + ".safetensors"), "not a .safetensors file"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_folder_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    damage, reason = DAMAGE[case]
    config = tiny_config("gemma2", num_hidden_layers=1)
    folder = write_hf_folder(tmp_path / "model", config, random_weights(config), shards=3)
    open_checkpoint(folder).close()
    damage(folder)
    with pytest.raises(ModelFormatError) as caught:
        open_checkpoint(folder)
    assert reason in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_same_tensor_under_two_spellings_is_refused(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text")
    weights = random_weights(config)
    weights["language_model.model.norm.weight"] = weights["model.norm.weight"]
    with pytest.raises(ModelFormatError, match=r"are both 'model\.norm\.weight'"):
        open_checkpoint(write_hf_folder(tmp_path, config, weights))
