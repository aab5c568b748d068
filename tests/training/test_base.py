"""Training uses the same base as serving, from a folder or a GGUF file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from intaglio.errors import ModelFormatError
from intaglio.model.config import config_from_hf
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.training.base import hugging_face_config, load_base
from intaglio.training.dtypes import BASE_DTYPES
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_gguf, write_hf_folder
from tests.oracle.transformers_peft import hf_logits, load_hf

IDS = np.array([2, 7, 5, 200, 33, 41, 9, 77, 120, 5, 6], np.int32)  # longer than the tiny models' window of 8


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_of_a_folder_gives_the_logits_that_transformers_gives_for_it(tmp_path: Path, family: Family) -> None:
    config = tiny_config(family)
    folder = write_hf_folder(tmp_path / "m", config, random_weights(config))
    ours, theirs = load_base(folder, "float32"), load_hf(folder)
    np.testing.assert_allclose(hf_logits(ours, IDS), hf_logits(theirs, IDS), atol=2e-4, rtol=2e-4)
    assert not any(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_model_as_gguf_gives_the_same_logits(tmp_path: Path, family: Family) -> None:
    config = tiny_config(family, **({} if family == "gemma" else {"query_pre_attn_scalar": 32}))
    weights = random_weights(config)
    folder = load_base(write_hf_folder(tmp_path / "m", config, weights), "float32")
    file = load_base(write_gguf(tmp_path / "m.gguf", config, weights), "float32")
    np.testing.assert_allclose(hf_logits(file, IDS), hf_logits(folder, IDS), atol=2e-4, rtol=2e-4)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("stored", ["F32", "Q8_0", "Q5_0", "Q4_1"])
def test_a_base_in_float32_has_the_checkpoint_s_own_values_and_one_in_bfloat16_those_values_rounded_once(
    tmp_path: Path, stored: str
) -> None:
    import torch

    raw = tiny_config("gemma3_text", query_pre_attn_scalar=32)
    file = write_gguf(tmp_path / "m.gguf", raw, random_weights(raw), stored)
    float32, bfloat16 = (load_base(file, dtype).state_dict() for dtype in BASE_DTYPES)
    with open_checkpoint(file) as checkpoint:
        assert checkpoint.norm_includes_one
        for name in read_config(checkpoint).tensor_shapes():
            own = torch.from_numpy(checkpoint.tensor(name)) - (1 if name.endswith("norm.weight") else 0)
            assert float32[name].dtype == torch.float32
            assert torch.equal(float32[name], own), name
            assert torch.equal(bfloat16[name], own.bfloat16()), name


@pytest.mark.parametrize("spelling", ["old", "new"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_is_read_back_from_its_hugging_face_keys(family: Family, spelling: str) -> None:
    config = config_from_hf(tiny_config(family, spelling))  # type: ignore[arg-type]
    keys = {"model_type": family} | hugging_face_config(config)
    assert config_from_hf(keys) == config


def test_a_score_scale_that_transformers_cannot_have_is_refused() -> None:
    config = replace(config_from_hf(tiny_config("gemma2")), score_scale=0.3)
    with pytest.raises(ModelFormatError, match=r"query_pre_attn_scalar is 11\.1"):
        hugging_face_config(config)
