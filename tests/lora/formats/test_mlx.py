"""MLX-LM's adapters are the same adapters as PEFT's of the same numbers, or refused with the key or tensor named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import (
    AdapterLimits,
    check_config_file,
    check_pair,
    check_weights_file,
    read_peft_adapter,
)
from intaglio.model.config import ModelConfig
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.mlx_adapters import mlx_config, write_mlx_adapter

LIMITS = AdapterLimits()


def read(folder: Path, base: ModelConfig) -> LoraAdapter:
    return read_peft_adapter(folder, base, LIMITS)


@pytest.mark.parametrize(("scale", "alpha"), [(20.0, 80), (0.5, 2), (-1.5, -6)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_the_adapter_that_peft_would_have_saved(
    tmp_path: Path, base: ModelConfig, scale: float, alpha: float, dtype: str
) -> None:
    """The digest covers every number that is computed with: A and B the right way round, and the scaling."""
    mlx = read(write_mlx_adapter(tmp_path / "mlx", base, scale=scale, dtype=dtype), base)
    peft = read(write_peft_adapter(tmp_path / "peft", base, rank=4, alpha=alpha, dtype=dtype), base)
    assert (mlx.digest, mlx.num_modules, mlx.rank) == (peft.digest, peft.num_modules, 4)
    assert all(pair.a.flags.c_contiguous and pair.b.flags.c_contiguous for pair in mlx.pairs.values())


def test_square_matrices_are_transposed_too(tmp_path: Path, base: ModelConfig) -> None:
    """Where rank and width are equal, shapes do not show a transposition that was forgotten."""
    width = base.hidden_size
    peft = write_peft_adapter(tmp_path / "peft", base, rank=width, alpha=20 * width, targets=["q_proj"])
    mlx = write_mlx_adapter(tmp_path / "mlx", base, rank=width, targets=["q_proj"], keys=["self_attn.q_proj"])
    assert read(mlx, base).digest == read(peft, base).digest


def test_its_dora_has_magnitudes(tmp_path: Path, base: ModelConfig) -> None:
    folder = write_mlx_adapter(tmp_path, base, dora=True)
    stored, adapter = load_file(folder / "adapters.safetensors"), read(folder, base)
    for (layer, name), pair in adapter.pairs.items():
        np.testing.assert_array_equal(pair.magnitude, stored[f"model.layers.{layer}.{name}.m"])


def test_the_last_layers_are_adapted(tmp_path: Path, base: ModelConfig) -> None:
    last = base.num_layers - 1
    folder = write_mlx_adapter(tmp_path, base, layers=[last], num_layers=1)
    assert {layer for layer, _ in read(folder, base).pairs} == {last}
    for number in (1000, 0, -1):
        write_mlx_adapter(tmp_path, base, num_layers=number)
        assert {layer for layer, _ in read(folder, base).pairs} == set(range(base.num_layers))
    write_mlx_adapter(tmp_path, base, layers=[last - 1, last], num_layers=1)
    with pytest.raises(
        AdapterError, match=rf"adapters.safetensors: .*layer {last - 1}; num_layers .* is 1, so MLX adapts"
    ):
        read(folder, base)


def test_the_files_are_checked_alone_and_as_a_pair_under_the_names_of_an_upload(
    tmp_path: Path, base: ModelConfig
) -> None:
    folder = write_mlx_adapter(tmp_path, base)
    (folder / "adapters.safetensors").rename(folder / "adapter_model.safetensors")
    assert check_config_file(folder / "adapter_config.json", LIMITS).lora_alpha == 80
    check_weights_file(folder / "adapter_model.safetensors", LIMITS)
    check_pair(folder, base, LIMITS)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fine_tune_type": "full"}, "fine_tune_type is 'full'; .*mlx_lm.fuse"),
        ({"fine_tune_type": "qlora"}, "fine_tune_type is 'qlora'; lora and dora"),
        ({"lora_parameters": None}, "lora_parameters is missing"),
        ({"lora_parameters": {"rank": 4}}, "lora_parameters scale is missing"),
        ({"lora_parameters": {"rank": 0, "scale": 2.0}}, "lora_parameters rank is 0"),
        ({"lora_parameters": {"rank": 4, "scale": "2"}}, "lora_parameters scale is '2'"),
        (
            {"lora_parameters": {"rank": 4, "scale": 2.0, "rslora": True}},
            "lora_parameters has the unknown key 'rslora'",
        ),
        ({"lora_parameters": {"rank": 4, "scale": 2.0, "keys": "q_proj"}}, "lora_parameters keys is 'q_proj'; a list"),
        ({"num_layers": "all"}, "num_layers is 'all'"),
        ({"model": 5}, "model is 5"),
    ],
)
def test_a_config_that_leaves_the_arithmetic_open_is_refused(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(mlx_config(**changes)))
    with pytest.raises(AdapterError, match=f"^adapter_config.json: {complaint}"):
        check_config_file(tmp_path / "adapter_config.json", LIMITS)


# What versions of mlx-lm save where nothing was set, of the keys that say what the adapter computes.
_ALPHA = {"rank": 4, "alpha": 16, "dropout": 0.0, "scale": 10.0}
UNUSED_ALPHA: Mapping[str, dict[str, Any]] = {
    "0.19 to 0.23": {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": _ALPHA},
    "0.32, with settings for another": {"lora_parameters": _ALPHA | {"keys": [f"self_attn.{x}_proj" for x in "qv"]}},
}


@pytest.mark.parametrize("version", UNUSED_ALPHA)
def test_an_alpha_beside_scale_is_not_used_as_in_mlx_lm_since_0_15(
    tmp_path: Path, base: ModelConfig, version: str
) -> None:
    targets = ["q_proj", "v_proj"]
    mlx = write_mlx_adapter(tmp_path / "mlx", base, targets=targets, **UNUSED_ALPHA[version])
    peft = write_peft_adapter(tmp_path / "peft", base, rank=4, alpha=40, targets=targets)
    assert read(mlx, base).digest == read(peft, base).digest


def write_old_config(folder: Path, **changes: Any) -> Path:
    """As mlx-lm 0.14 to 0.18 writes it: the versions differ in what they do with alpha."""
    old = {name: value for name, value in mlx_config().items() if name not in ("fine_tune_type", "num_layers")}
    old |= {"lora_layers": 16, "use_dora": False, "lora_parameters": _ALPHA} | changes
    (folder / "adapter_config.json").write_text(json.dumps(old))
    return folder


def test_an_alpha_of_a_version_that_may_have_used_it_is_refused(tmp_path: Path, base: ModelConfig) -> None:
    write_old_config(tmp_path)
    complaint = "^adapter_config.json: lora_parameters has alpha 16 beside scale, .*until 0.14, .* remove alpha"
    with pytest.raises(AdapterError, match=complaint):
        check_config_file(tmp_path / "adapter_config.json", LIMITS)
    write_old_config(tmp_path, lora_parameters=_ALPHA | {"alpha": 4.0})
    assert check_config_file(tmp_path / "adapter_config.json", LIMITS).lora_alpha == 40, "the factor is 1"


def test_an_old_dora_is_one(tmp_path: Path, base: ModelConfig) -> None:
    """Before 0.19 the config said so with use_dora."""
    folder = write_mlx_adapter(tmp_path, base, dora=True)
    new = read(folder, base)
    write_old_config(folder, use_dora=True, lora_parameters={"rank": 4, "dropout": 0.0, "scale": 20.0})
    assert read(folder, base).digest == new.digest


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        ({"keys": ["self_attn.q_proj"]}, "does not adapt model.layers.0.mlp.down_proj"),
        ({"lora_parameters": {"rank": 8, "scale": 20.0}}, "rank 4; .* rank 8"),
        ({"fine_tune_type": "dora"}, "no lora_magnitude_vector beside it, but use_dora"),
    ],
)
def test_a_config_of_another_training_is_refused(
    tmp_path: Path, base: ModelConfig, overrides: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(AdapterError, match=complaint):
        read(write_mlx_adapter(tmp_path, base, **overrides), base)


@pytest.mark.parametrize(
    ("rename", "complaint"),
    [
        (("model.layers.0.mlp.down_proj.lora_b", None), "down_proj.lora_a' has no lora_B beside it"),
        (("model.layers.0.mlp.down_proj.lora_b", "model.embed_tokens.lora_b"), "LoRA of MLX on the embedding"),
        (
            ("model.layers.0.mlp.down_proj.lora_b", "model.layers.0.mlp.experts.lora_b"),
            "is not a LoRA weight of a Gemma",
        ),
    ],
)
def test_a_tensor_that_is_not_used_is_refused(
    tmp_path: Path, base: ModelConfig, rename: tuple[str, str | None], complaint: str
) -> None:
    folder = write_mlx_adapter(tmp_path, base)
    tensors = dict(load_file(folder / "adapters.safetensors"))
    values = tensors.pop(rename[0])
    save_file(tensors | ({} if rename[1] is None else {rename[1]: values}), folder / "adapters.safetensors")
    with pytest.raises(AdapterError, match=complaint):
        read(folder, base)
