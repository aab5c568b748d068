"""The interface of a checkpoint, which is the same for all formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from intaglio.errors import ModelFormatError
from intaglio.model.config import config_from_gguf
from intaglio.model.weights import check_shapes, open_checkpoint
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_gguf, write_hf_folder

Q0 = "model.layers.0.self_attn.q_proj.weight"


@pytest.mark.parametrize("family", FAMILIES)
def test_both_formats_give_the_same_tensors_and_differ_by_one_in_norms(family: Family, tmp_path: Path) -> None:
    """Checks the names too: a norm under the name of another norm would have other values."""
    config = tiny_config(family)
    weights = random_weights(config)
    from_folder = open_checkpoint(write_hf_folder(tmp_path / "hf", config, weights))
    from_gguf = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", config, weights))
    assert (from_folder.norm_includes_one, from_gguf.norm_includes_one) == (False, True)
    assert set(from_gguf.names()) == set(from_folder.names()) == set(weights)
    check_shapes(from_gguf, config_from_gguf(from_gguf.raw_config, config["vocab_size"]).tensor_shapes())
    for name in weights:
        one = np.float32(1 if name.endswith("norm.weight") else 0)
        np.testing.assert_array_equal(from_gguf.tensor(name), from_folder.tensor(name) + one)


@pytest.mark.parametrize("types", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_file_is_near_the_weights_it_was_made_from(types: str, tmp_path: Path) -> None:
    config = tiny_config("gemma3_text", hidden_size=64, num_hidden_layers=1)
    weights = random_weights(config)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "tiny.gguf", config, weights, types=types))
    assert checkpoint.info(Q0).dtype == types
    correlation = np.corrcoef(checkpoint.tensor(Q0).ravel(), weights[Q0].ravel())[0, 1]
    assert correlation > 0.99


def test_gguf_head_is_dropped_when_tied_and_kept_when_not(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text")
    weights = random_weights(config)
    tied = weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    untied = weights | {"lm_head.weight": weights["model.embed_tokens.weight"] * np.float32(2)}
    assert "lm_head.weight" not in open_checkpoint(write_gguf(tmp_path / "tied.gguf", config, tied)).names()
    assert "lm_head.weight" in open_checkpoint(write_gguf(tmp_path / "untied.gguf", config, untied)).names()


def test_raw_bytes_are_a_read_only_view_that_outlives_the_checkpoint(tmp_path: Path) -> None:
    config = tiny_config("gemma")
    weights = random_weights(config)
    with open_checkpoint(write_gguf(tmp_path / "tiny.gguf", config, weights)) as checkpoint:
        raw = checkpoint.raw(Q0)
        assert not raw.data.flags.owndata
        assert not raw.data.flags.writeable
    assert raw.data.tobytes() == weights[Q0].tobytes()
    with pytest.raises(ModelFormatError, match=f"no tensor '{Q0}'"):
        checkpoint.tensor(Q0)


def test_check_shapes_names_the_first_tensor_that_does_not_fit(tmp_path: Path) -> None:
    config = tiny_config("gemma")
    weights = random_weights(config)
    shapes: dict[str, tuple[int, ...]] = {name: values.shape for name, values in weights.items()}
    checkpoint = open_checkpoint(write_hf_folder(tmp_path, config, weights))
    check_shapes(checkpoint, shapes)
    with pytest.raises(ModelFormatError, match=r"'model\.layers\.3\.x\.weight' is missing"):
        check_shapes(checkpoint, shapes | {"model.layers.3.x.weight": (48,)})
    with pytest.raises(ModelFormatError, match=r"q_proj\.weight'.*\[128, 48\].*\[48, 128\]"):
        check_shapes(checkpoint, shapes | {Q0: (48, 128)})
    del shapes["model.norm.weight"]
    with pytest.raises(ModelFormatError, match=r"'model\.norm\.weight' does not belong"):
        check_shapes(checkpoint, shapes)


def test_folder_with_one_gguf_file_is_opened_and_with_two_is_refused(tmp_path: Path) -> None:
    config = tiny_config("gemma")
    write_gguf(tmp_path / "a.gguf", config, random_weights(config))
    assert open_checkpoint(tmp_path).path == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").write_bytes(b"")
    with pytest.raises(ModelFormatError, match=r"2 \.gguf files.*a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path)


def test_folder_without_weights_is_refused_and_pickles_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(ModelFormatError, match=r"holds no weights.*pickle files"):
        open_checkpoint(tmp_path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"nowhere\.gguf cannot be read: No such file"):
        open_checkpoint(tmp_path / "nowhere.gguf")
