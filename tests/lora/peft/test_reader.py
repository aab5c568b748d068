"""A PEFT folder becomes an adapter with PEFT's arithmetic, or is refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    AdapterLimits,
    ReadStep,
    check_config_file,
    check_pair,
    check_weights_file,
    read_peft_adapter,
)
from intaglio.model.config import ModelConfig
from tests.helpers.adapters import ALL_TARGETS, adapter_tensors, peft_config, write_peft_adapter
from tests.lora.edited_files import rewrite, set_keys, spoil

LIMITS = AdapterLimits()
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
DOWN0 = "base_model.model.model.layers.0.mlp.down_proj"
EMBEDDING = "base_model.model.model.embed_tokens"


def read(folder: Path, base: ModelConfig, **limits: int) -> LoraAdapter:
    return read_peft_adapter(folder, base, replace(LIMITS, **limits))


# ------------------------------------------------------------------------------------------------------ what is served


def test_every_projection_of_every_layer_is_read_with_the_scaling_in_b(folder: Path, base: ModelConfig) -> None:
    adapter = read(folder, base)
    tensors = load_file(folder / WEIGHTS_FILE)
    assert (adapter.num_modules, adapter.rank) == (21, 4)
    for (layer, projection), pair in adapter.pairs.items():
        name = f"base_model.model.model.layers.{layer}.{projection}"
        np.testing.assert_array_equal(pair.a, tensors[f"{name}.lora_A.weight"])
        np.testing.assert_array_equal(pair.b, tensors[f"{name}.lora_B.weight"] * 2)  # alpha 8 / rank 4
        assert pair.a.dtype == pair.b.dtype == np.float32
        assert pair.a.flags.c_contiguous and pair.b.flags.c_contiguous
        assert (pair.b.shape[0], pair.a.shape[1]) == base.linear_layer_shapes()[projection]


def test_ranks_and_alphas_by_pattern_and_rslora_are_honoured_together(tmp_path: Path, base: ModelConfig) -> None:
    write_peft_adapter(
        tmp_path,
        base,
        rank=3,
        alpha=5,
        rslora=True,
        rank_pattern={r"layers\.1\..*": 7, "down_proj": 2},
        alpha_pattern={"q_proj": 16.5, r".*mlp\.(up|down)_proj": 0.25},
    )
    adapter, tensors = read(tmp_path, base), load_file(tmp_path / WEIGHTS_FILE)
    assert adapter.rank == 7
    for (layer, projection), pair in adapter.pairs.items():
        rank = 7 if layer == 1 else 2 if projection == "mlp.down_proj" else 3
        alpha = {"self_attn.q_proj": 16.5, "mlp.up_proj": 0.25, "mlp.down_proj": 0.25}.get(projection, 5)
        b = tensors[f"base_model.model.model.layers.{layer}.{projection}.lora_B.weight"]
        assert pair.a.shape[0] == rank
        np.testing.assert_allclose(pair.b, b * (alpha / math.sqrt(rank)), rtol=2e-7)


@pytest.mark.parametrize("layers", [[1], [0, 2]])
def test_only_the_transformed_layers_and_targets_have_pairs(
    tmp_path: Path, base: ModelConfig, layers: list[int]
) -> None:
    write_peft_adapter(tmp_path, base, targets=("q_proj", "v_proj"), layers=layers)
    assert set(read(tmp_path, base).pairs) == {(n, f"self_attn.{p}_proj") for n in layers for p in "qv"}


@pytest.mark.parametrize(
    "targets",
    ["all-linear", r".*\.(?:q|v|up)_proj", r"model\.layers\.\d+\..*_proj", ["up_proj", "v_proj", "q_proj", "fc1"]],
)
def test_targets_may_be_a_list_an_expression_or_all_linear(tmp_path: Path, base: ModelConfig, targets: Any) -> None:
    write_peft_adapter(tmp_path, base, targets=("q_proj", "v_proj", "up_proj"), target_modules=targets)
    assert read(tmp_path, base).num_modules == 9


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_exactly(tmp_path: Path, base: ModelConfig, dtype: str) -> None:
    write_peft_adapter(tmp_path, base, dtype=dtype, alpha=4)
    stored = adapter_tensors(base, dtype=dtype)
    for (layer, projection), pair in read(tmp_path, base).pairs.items():
        name = f"base_model.model.model.layers.{layer}.{projection}"
        np.testing.assert_array_equal(pair.a, stored[f"{name}.lora_A.weight"].astype(np.float32))
        np.testing.assert_array_equal(pair.b, stored[f"{name}.lora_B.weight"].astype(np.float32))


@pytest.mark.parametrize("model_type", ["gemma", "gemma2"])
def test_model_type_gemma_fits_every_base_and_another_family_only_its_own(
    folder: Path, base: ModelConfig, model_type: str
) -> None:
    set_keys(folder, model_type=model_type)
    second = replace(base, family="gemma2")
    assert read(folder, second).num_modules == 21
    if model_type == "gemma":
        assert read(folder, base).num_modules == 21
    else:
        with pytest.raises(AdapterError, match=r"model_type is 'gemma2'.*gemma"):
            read(folder, base)


# ------------------------------------------------------------------------------------------------------------- identity


SPELLINGS: dict[str, Callable[[str], str]] = {
    "no prefix": lambda name: name.removeprefix("base_model.model."),
    "adapter name inside": lambda name: name.replace(".weight", ".default.weight"),
    "compiled": lambda name: f"_orig_mod.{name}",
    "distributed": lambda name: f"module.{name}",
    "multimodal": lambda name: name.replace("model.layers", "model.language_model.layers"),
    "old multimodal": lambda name: name.replace("model.model.layers", "model.language_model.model.layers"),
    "without the head's model": lambda name: name.replace("model.model.layers", "model.layers"),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_the_digest_is_the_same_in_every_spelling(folder: Path, base: ModelConfig, spell: Callable[[str], str]) -> None:
    before = read(folder, base)
    tensors = load_file(folder / WEIGHTS_FILE)
    save_file({spell(name): tensors[name] for name in reversed(tensors)}, folder / WEIGHTS_FILE)
    set_keys(folder, lora_dropout=0.5, base_model_name_or_path="elsewhere", model_type="gemma", peft_version="0.9.0")
    after = read(folder, base)
    assert after.digest == before.digest
    assert after.pairs.keys() == before.pairs.keys()


def test_the_digest_is_of_the_values_not_of_their_storage(tmp_path: Path, base: ModelConfig) -> None:
    write_peft_adapter(tmp_path / "half", base, dtype="bfloat16")
    write_peft_adapter(tmp_path / "single", base)
    tensors = {name: t.astype(np.float32) for name, t in adapter_tensors(base, dtype="bfloat16").items()}
    save_file(tensors, tmp_path / "single" / WEIGHTS_FILE)
    assert read(tmp_path / "half", base).digest == read(tmp_path / "single", base).digest


@pytest.mark.parametrize(
    "change",
    [{"lora_alpha": 8.001}, {"use_rslora": True}, {"alpha_pattern": {"layers.2.mlp.up_proj": 9}}, {"lora_alpha": -8}],
)
def test_the_digest_changes_with_every_setting_of_the_arithmetic(
    folder: Path, base: ModelConfig, change: dict[str, Any]
) -> None:
    before = read(folder, base).digest
    set_keys(folder, **change)
    assert read(folder, base).digest != before


# --------------------------------------------------------------------------------------------------------- what is not


def with_nan(values: Any) -> Any:
    values = values.copy()
    values[-1, -1] = np.nan
    return values


TENSOR_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no tensors": (lambda t: t.clear(), "holds no tensors"),
    "half a pair": (lambda t: t.pop(f"{Q0}.lora_B.weight"), f"'{Q0}.lora_A.weight' has no lora_B beside it"),
    "a tensor that was not trained": (
        lambda t: t.update({"base_model.model.lm_head.weight": np.ones((512, 48), np.float32)}),
        "'base_model.model.lm_head.weight' is a table of the base, which cannot be compared with the base here",
    ),
    "a whole projection": (
        lambda t: t.update({f"{Q0}.weight": np.ones((128, 48), np.float32)}),
        f"'{Q0}.weight' replaces a whole linear layer",
    ),
    "zeros": (
        lambda t: t.update({n: np.zeros_like(t[n]) for n in t if "lora_B" in n}),
        "every product of lora_B, lora_A and the scaling is zero, so the adapter would change nothing",
    ),
    "DoRA's vector": (
        lambda t: t.update({f"{Q0}.lora_magnitude_vector": np.ones(128, np.float32)}),
        f"'{Q0}.lora_magnitude_vector' is there, but use_dora in adapter_config.json is off",
    ),
    "a bias": (
        lambda t: t.update({f"{Q0}.lora_B.bias": np.ones(128, np.float32)}),
        f"'{Q0}.lora_B.bias' is there, but lora_bias in adapter_config.json is off",
    ),
    "a norm": (
        lambda t: t.update({"base_model.model.model.norm.weight": np.ones(48, np.float32)}),
        "'base_model.model.model.norm.weight' replaces norm, but modules_to_save in adapter_config.json does not name",
    ),
    "rows of tokens": (
        lambda t: t.update({f"{EMBEDDING}.token_adapter.trainable_tokens_delta": np.ones((2, 48), np.float32)}),
        "trainable_tokens_delta' has 2 rows; trainable_token_indices in adapter_config.json names 0 tokens for it",
    ),
    "a LoRA on the head": (
        lambda t: t.update(
            {
                "base_model.model.lm_head.lora_A.weight": np.ones((4, 48), np.float32),
                "base_model.model.lm_head.lora_B.weight": np.ones((512, 4), np.float32),
            }
        ),
        "'base_model.model.lm_head.lora_A.weight' is there, but adapter_config.json does not adapt lm_head",
    ),
    "NaN": (spoil(f"{Q0}.lora_A.weight", with_nan), f"'{Q0}.lora_A.weight' holds values that are NaN"),
    "another input size": (
        spoil(f"{Q0}.lora_A.weight", lambda a: a[:, :47]),
        f"'{Q0}.lora_A.weight' has shape [4, 47]; the base model needs [rank, 48]",
    ),
    "another output size": (
        spoil(f"{Q0}.lora_B.weight", lambda b: b[:96]),
        f"'{Q0}.lora_B.weight' has shape [96, 4]; the base model needs [128, rank]",
    ),
    "halves that do not fit": (
        spoil(f"{Q0}.lora_B.weight", lambda b: b[:, :3]),
        f"'{Q0}.lora_A.weight' has shape [4, 48] and '{Q0}.lora_B.weight' [128, 3]",
    ),
    "a layer too many": (
        lambda t: t.update({n.replace("layers.0", "layers.3"): t[n] for n in list(t) if "layers.0.mlp.up" in n}),
        "is for layer 3; the base model has layers 0 to 2",
    ),
    "rank zero": (
        lambda t: [
            spoil(f"{Q0}.lora_A.weight", lambda a: a[:0])(t),
            spoil(f"{Q0}.lora_B.weight", lambda b: b[:, :0])(t),
        ],
        "at least 1",
    ),
    "another rank than the config's": (
        lambda t: [
            spoil(f"{Q0}.lora_A.weight", lambda a: a[:2])(t),
            spoil(f"{Q0}.lora_B.weight", lambda b: b[:, :2])(t),
        ],
        f"'{Q0}.lora_A.weight' has rank 2; adapter_config.json gives model.layers.0.self_attn.q_proj rank 4",
    ),
}


@pytest.mark.parametrize(("change", "complaint"), TENSOR_FAULTS.values(), ids=TENSOR_FAULTS.keys())
def test_weights_that_cannot_be_served_are_refused_by_name(
    folder: Path, base: ModelConfig, change: Callable[[dict[str, Any]], Any], complaint: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(AdapterError) as refusal:
        read(folder, base)
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, "does not adapt model.layers.0.mlp.down_proj"),
        ({"target_modules": r".*self_attn.*"}, "does not adapt model.layers.0.mlp.down_proj"),
        ({"exclude_modules": ["up_proj"]}, "does not adapt model.layers.0.mlp.up_proj"),
        ({"layers_to_transform": [0, 1]}, "does not adapt model.layers.2.mlp.down_proj"),
        ({"layers_to_transform": [-1]}, "in layers_to_transform PEFT counts no layer from the end"),
        ({"r": 8}, "rank 4; adapter_config.json gives model.layers.0.mlp.down_proj rank 8"),
        ({"rank_pattern": {"v_proj": 2}}, "adapter_config.json gives model.layers.0.self_attn.v_proj rank 2"),
        ({"lora_alpha": 1e39}, "the scaling of model.layers.0.mlp.down_proj is 2.5e+38"),
        ({"lora_alpha": 0}, "would change nothing; it was not trained, or lora_alpha is 0"),
        ({"use_dora": True}, f"tensor '{DOWN0}.lora_B.weight' has no lora_magnitude_vector beside it, but use_dora"),
        ({"lora_bias": True}, f"tensor '{DOWN0}.lora_B.weight' has no lora_B.bias beside it, but lora_bias"),
        ({"modules_to_save": ["norm"]}, "holds no weights of 'norm', which modules_to_save"),
        ({"trainable_token_indices": [3]}, "holds no rows of embed_tokens, which trainable_token_indices"),
        ({"trainable_token_indices": {"layers": [3]}}, "trainable_token_indices names 'layers'; rows of embed_tokens"),
        ({"lora_alpha": 1e300}, "the scaling of model.layers.0.mlp.down_proj is 2.5e+299"),
        ({"target_modules": "(.*)*q_proj|" * 300 + "(x"}, "is not a regular expression"),
    ],
)
def test_a_config_that_contradicts_the_weights_is_refused_by_name(
    folder: Path, base: ModelConfig, changes: dict[str, Any], complaint: str
) -> None:
    if complaint.startswith("the scaling of model.layers.0.mlp.down_proj is 2.5e+38"):
        rewrite(folder, lambda t: t.update({n: t[n] * 100 for n in t if "lora_B" in n}))
    set_keys(folder, **changes)
    with pytest.raises(AdapterError) as refusal:
        read(folder, base)
    assert complaint in str(refusal.value)


def test_an_adapter_of_another_base_is_refused(folder: Path, base: ModelConfig) -> None:
    refusal = r"trained on another model \(adapter_config\.json names 'google/gemma-tiny'\); upload it for that one"
    with pytest.raises(AdapterError, match=refusal):
        read(folder, replace(base, intermediate_size=161))
    set_keys(folder, base_model_name_or_path=None)
    with pytest.raises(AdapterError, match="trained on another model; upload it for that one"):
        read(folder, replace(base, num_layers=1))


def test_rank_and_sizes_are_limited(folder: Path, base: ModelConfig) -> None:
    with pytest.raises(AdapterError, match=r"\br is 4.*limit is 3"):
        read(folder, base, max_rank=3)
    set_keys(folder, r=3)
    with pytest.raises(AdapterError, match=r"rank 4.*limit is 3"):
        read(folder, base, max_rank=3)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors has .* bytes; the limit is 1000"):
        read(folder, base, max_file_bytes=1000)
    with pytest.raises(AdapterError, match=r"adapter_config\.json has more than 100 bytes"):
        read(folder, base, max_config_bytes=100)


def test_memory_is_limited_before_a_value_is_read(folder: Path, base: ModelConfig) -> None:
    needed = sum(4 * tensor.size for tensor in load_file(folder / WEIGHTS_FILE).values())
    assert read(folder, base, max_memory_bytes=needed).nbytes == needed
    rewrite(folder, spoil(f"{Q0}.lora_A.weight", with_nan))  # not even looked at
    with pytest.raises(AdapterError, match=rf"take {needed} bytes .* is {needed - 1} \(adapter_cache_bytes\)"):
        read(folder, base, max_memory_bytes=needed - 1)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_file_is_named(folder: Path, base: ModelConfig, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"{name} cannot be read: No such file"):
        read(folder, base)


def test_each_file_can_be_checked_before_the_other_is_uploaded(folder: Path, base: ModelConfig) -> None:
    assert check_config_file(folder / CONFIG_FILE, LIMITS).r == 4
    check_weights_file(folder / WEIGHTS_FILE, LIMITS)
    rewrite(folder, spoil(f"{Q0}.lora_A.weight", with_nan))
    with pytest.raises(AdapterError, match=f"'{Q0}.lora_A.weight' holds values"):
        check_weights_file(folder / WEIGHTS_FILE, LIMITS)
    rewrite(folder, lambda t: t.pop(f"{Q0}.lora_A.weight"))
    with pytest.raises(AdapterError, match="has no lora_A beside it"):
        check_weights_file(folder / WEIGHTS_FILE, LIMITS)
    with pytest.raises(AdapterError, match="limit is 3"):
        check_config_file(folder / CONFIG_FILE, replace(LIMITS, max_rank=3))
    set_keys(folder, target_modules="*")
    with pytest.raises(AdapterError, match=r"target_modules '\*' is not a regular expression"):
        check_config_file(folder / CONFIG_FILE, LIMITS)


def test_a_pair_is_checked_without_its_values(folder: Path, base: ModelConfig) -> None:
    steps: list[ReadStep] = []
    rewrite(folder, spoil(f"{Q0}.lora_A.weight", with_nan))
    check_pair(folder, base, LIMITS, steps.append)
    assert steps == [ReadStep.CONFIG, ReadStep.HEADER, ReadStep.NAMES, ReadStep.SHAPES]
    rewrite(folder, lambda t: t.update({f"{Q0}.lora_A.weight": t[f"{Q0}.lora_A.weight"][:, 1:].copy()}))
    with pytest.raises(AdapterError, match=f"{Q0}.lora_A.weight"):
        check_pair(folder, base, LIMITS)


def test_a_rank_pattern_with_every_module_by_name_is_read_quickly(tmp_path: Path, base: ModelConfig) -> None:
    """EVA writes one key per module; a 27B has 434."""
    deep = replace(base, num_layers=62, layers=base.layers[:1] * 62)
    names = [f"model.layers.{n}.{projection}" for n in range(62) for projection in base.linear_layer_shapes()]
    write_peft_adapter(tmp_path, deep, rank=1, rank_pattern={name: 1 + len(name) % 3 for name in names})
    assert read(tmp_path, deep).num_modules == len(names) == 434


def test_the_tables_of_the_helper_name_every_projection(base: ModelConfig) -> None:
    assert set(ALL_TARGETS) == {projection.rpartition(".")[2] for projection in base.linear_layer_shapes()}
    assert peft_config()["target_modules"] == list(ALL_TARGETS)
