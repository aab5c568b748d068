"""What an adapter does to embedding, head and norms: read as PEFT's files have it, each spelling, each contradiction.

The good adapters are the stored ones that PEFT made; tests/model/test_adapter_kinds.py holds their logits to PEFT's.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.base_tables import BaseTable
from intaglio.lora.peft.reader import WEIGHTS_FILE, AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.ops import MODEL
from tests.golden import cases
from tests.lora.edited_files import Tensors, rename, rewrite, set_keys, spoil

EMBEDDING, HEAD = (MODEL, "embed_tokens"), (MODEL, "lm_head")
PREFIX = "base_model.model.model"
TABLE, LAST = f"{PREFIX}.embed_tokens", "base_model.model.lm_head"
ROWS = f"{TABLE}.token_adapter.trainable_tokens_delta"


def base_of(name: cases.Base) -> ModelConfig:
    return config_from_hf((cases.untied_model() if name == "untied" else cases.tiny_model(name))[0])


@pytest.fixture
def good(tmp_path: Path) -> Callable[[cases.Base, str], Path]:
    """A stored adapter, in a folder where it can be spoilt."""
    return lambda base, name: Path(shutil.copytree(cases.adapter_folder(base, name), tmp_path / f"{base}-{name}"))


def read(folder: Path, base: cases.Base, **limits: int) -> LoraAdapter:
    return read_peft_adapter(folder, base_of(base), AdapterLimits(**limits))


def tensors_of(base: cases.Base, name: str) -> Tensors:
    return dict(load_file(cases.adapter_folder(base, name) / WEIGHTS_FILE))


# ------------------------------------------------------------------------------------------------------ what is served


def test_the_scaling_is_folded_into_embedding_head_and_bias() -> None:
    files = tensors_of("gemma2", "embedding_and_head")
    pairs = read(cases.adapter_folder("gemma2", "embedding_and_head"), "gemma2").pairs
    np.testing.assert_array_equal(pairs[EMBEDDING].a, files[f"{TABLE}.lora_embedding_A"])
    np.testing.assert_allclose(pairs[EMBEDDING].b, files[f"{TABLE}.lora_embedding_B"] * 6 / 2**0.5, rtol=2e-7)
    np.testing.assert_allclose(pairs[HEAD].b, files[f"{LAST}.lora_B.weight"] * 3 / 4**0.5, rtol=2e-7)
    bias = read(cases.adapter_folder("gemma", "bias"), "gemma").pairs[HEAD].bias
    np.testing.assert_allclose(bias, tensors_of("gemma", "bias")[f"{LAST}.lora_B.bias"] * 3.5, rtol=2e-7)


def test_a_magnitude_is_read_as_it_is() -> None:
    pairs, files = read(cases.adapter_folder("gemma", "dora"), "gemma").pairs, tensors_of("gemma", "dora")
    assert pairs.keys() == {(0, "self_attn.q_proj"), (1, "mlp.down_proj"), EMBEDDING, HEAD}
    np.testing.assert_array_equal(pairs[EMBEDDING].magnitude, files[f"{TABLE}.lora_magnitude_vector"])
    assert pairs[EMBEDDING].magnitude.shape == (48,) and pairs[HEAD].magnitude.shape == (512,)


def test_magnitudes_whose_lora_was_never_trained_are_no_effect(good: Callable[[cases.Base, str], Path]) -> None:
    """What they are divided by is as long, but for the rounding of a base that is quantized."""
    folder = good("gemma", "dora")
    rewrite(folder, lambda tensors: [tensors[name].fill(0) for name in tensors if "lora_" in name and "_B" in name])
    with pytest.raises(AdapterError, match="would change nothing; it was not trained"):
        read(folder, "gemma")


def test_norms_get_their_one_and_tables_are_float32() -> None:
    tensors = read(cases.adapter_folder("untied", "saved_head"), "untied").tensors
    files = tensors_of("untied", "saved_head")
    np.testing.assert_array_equal(
        tensors.norms[1, "input_layernorm"], files[f"{PREFIX}.layers.1.input_layernorm.weight"] + 1
    )
    np.testing.assert_array_equal(tensors.tables["lm_head"], files[f"{LAST}.weight"])
    assert tensors.norms.keys() == {(1, "input_layernorm")} and tensors.tables.keys() == {"lm_head"}
    assert not tensors.is_sum
    norms = read(cases.adapter_folder("gemma3_text", "norms"), "gemma3_text").tensors.norms
    assert (
        len(norms) == 7 * 6 + 1 and norms[MODEL, "norm"].shape == (48,) and norms[6, "self_attn.q_norm"].shape == (32,)
    )


def test_token_rows_are_sorted_by_token_and_shared_with_a_tied_head() -> None:
    rows = read(cases.adapter_folder("gemma", "tokens"), "gemma").tensors.rows
    assert rows["embed_tokens"].ids.tolist() == rows["lm_head"].ids.tolist() == [5, 77, 130]
    np.testing.assert_array_equal(rows["lm_head"].rows, tensors_of("gemma", "tokens")[ROWS][[1, 0, 2]])
    assert read(cases.adapter_folder("untied", "tokens"), "untied").tensors.rows.keys() == {"embed_tokens"}
    apart = read(cases.adapter_folder("gemma2", "tokens_apart"), "gemma2").tensors.rows
    assert (apart["embed_tokens"].ids.tolist(), apart["lm_head"].ids.tolist()) == ([3, 9], [3, 200])


def test_an_adapter_that_is_nothing_but_rows_is_served(good: Callable[[cases.Base, str], Path]) -> None:
    folder = good("gemma", "tokens")
    rewrite(folder, lambda t: [t.pop(name) for name in list(t) if "lora_" in name])
    adapter = read(folder, "gemma")
    assert (adapter.rank, adapter.num_modules, len(adapter.pairs)) == (0, 2, 0)


@pytest.mark.parametrize(
    ("base", "name", "old", "new"),
    [
        ("gemma", "dora", "lora_magnitude_vector", "lora_magnitude_vector.weight"),
        ("gemma", "bias", "base_model.model.", ""),
        ("gemma2", "embedding_and_head", "base_model.model.", "_orig_mod."),
        ("gemma2", "tied", "model.model.", "model.model.language_model."),
        ("gemma3_text", "norms", "norm.weight", "norm.modules_to_save.weight"),
        ("untied", "saved_head", f"{LAST}.weight", f"{LAST}.modules_to_save.weight"),
    ],
)
def test_every_spelling_of_the_other_tensors_is_the_same_adapter(
    good: Callable[[cases.Base, str], Path], base: cases.Base, name: str, old: str, new: str
) -> None:
    folder = good(base, name)
    before = read(folder, base)
    rewrite(folder, rename(old, new))
    assert read(folder, base).digest == before.digest


@pytest.mark.parametrize(
    ("base", "name"), [("gemma", "dora"), ("gemma", "bias"), ("gemma", "tokens"), ("gemma2", "tied")]
)
def test_the_adapters_name_inside_changes_nothing(
    good: Callable[[cases.Base, str], Path], base: cases.Base, name: str
) -> None:
    folder = good(base, name)
    before = read(folder, base)
    for part in ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector", "tokens_delta"):
        rewrite(folder, rename(part, f"{part}.default"))
    assert any(".default" in tensor for tensor in load_file(folder / WEIGHTS_FILE))
    assert read(folder, base).digest == before.digest


@pytest.mark.parametrize(
    ("base", "name", "part"),
    [
        ("gemma", "dora", "magnitude"),
        ("gemma", "bias", "bias"),
        ("gemma", "tokens", "delta"),
        ("gemma3_text", "norms", "k_norm"),
        ("untied", "saved_head", "lm_head"),
        ("untied", "embedding", "embedding_B"),
    ],
)
def test_every_kind_of_tensor_is_in_the_digest(
    good: Callable[[cases.Base, str], Path], base: cases.Base, name: str, part: str
) -> None:
    folder = good(base, name)
    before = read(folder, base).digest
    tensor = next(tensor for tensor in sorted(load_file(folder / WEIGHTS_FILE)) if part in tensor)
    rewrite(
        folder,
        spoil(
            tensor,
            lambda values: np.where(np.arange(values.size).reshape(values.shape) == 3, 0.5, values).astype(np.float32),
        ),
    )
    assert read(folder, base).digest != before


def test_which_tokens_the_rows_are_for_is_in_the_digest(good: Callable[[cases.Base, str], Path]) -> None:
    folder = good("gemma", "tokens")
    before = read(folder, "gemma").digest
    set_keys(folder, trainable_token_indices=[77, 5, 131])
    assert read(folder, "gemma").digest != before
    # The same rows for the same tokens, named in another order.
    set_keys(folder, trainable_token_indices=[5, 77, 130])
    rewrite(folder, spoil(ROWS, lambda rows: rows[[1, 0, 2]]))
    assert read(folder, "gemma").digest == before


def test_the_bases_own_tables_are_left_out_and_others_refused(good: Callable[[cases.Base, str], Path]) -> None:
    config, weights = cases.tiny_model("gemma2")
    own = weights["model.embed_tokens.weight"]
    table = BaseTable(own.shape, False, lambda: iter([own[:100], own[100:]]))
    folder, base = good("gemma2", "embedding_and_head"), config_from_hf(config)
    before = read(folder, "gemma2").digest
    rewrite(folder, lambda t: t.update({f"{TABLE}.base_layer.weight": own, f"{LAST}.weight": own.astype(np.float16)}))
    asked: list[str] = []

    def tables(name: str) -> BaseTable:
        asked.append(name)
        return table

    assert read_peft_adapter(folder, base, AdapterLimits(), base_tables=tables).digest == before
    assert asked == ["embed_tokens", "lm_head"]
    with pytest.raises(AdapterError, match=r"base_layer.weight'.*embedding_layers"):
        read_peft_adapter(folder, base, AdapterLimits())
    rewrite(folder, spoil(f"{TABLE}.base_layer.weight", lambda values: values + np.eye(256, 48, dtype=np.float32)))
    with pytest.raises(AdapterError, match=r"base_layer.weight'.* 48 of 256 rows"):
        read_peft_adapter(folder, base, AdapterLimits(), base_tables=tables)


@pytest.mark.parametrize("version", [None, "0.17.1"])
@pytest.mark.parametrize(("base", "name"), [("gemma3_text", "tokens_under_head"), ("gemma2", "tied")])
def test_what_an_old_peft_trained_into_gemma_3s_embedding_is_refused(
    good: Callable[[cases.Base, str], Path], base: cases.Base, name: str, version: str | None
) -> None:
    folder = good(base, name)
    set_keys(folder, peft_version=version)
    if base == "gemma2":  # the scale of which was outside the embedding
        assert read(folder, base).num_modules == 4
    else:
        with pytest.raises(AdapterError, match=r"PEFT .* 0.18 .*[Tt]rain again"):
            read(folder, base)


def test_tables_are_bounded_in_memory_with_the_setting_named(good: Callable[[cases.Base, str], Path]) -> None:
    folder = good("untied", "saved_head")
    needed = read(folder, "untied").nbytes
    assert read(folder, "untied", max_memory_bytes=needed).num_modules == 4
    with pytest.raises(AdapterError, match=rf"{needed} bytes .*, 49152 of them for whole tables .*adapter_cache_bytes"):
        read(folder, "untied", max_memory_bytes=needed - 1)


def test_rows_on_a_tied_head_count_twice_in_memory() -> None:
    folder, limits = cases.adapter_folder("gemma", "tokens"), AdapterLimits()
    loras = sum(pair.nbytes for pair in read(folder, "gemma").pairs.values())
    with pytest.raises(AdapterError, match="adapter_cache_bytes"):
        read_peft_adapter(folder, base_of("gemma"), replace(limits, max_memory_bytes=loras + 2 * 3 * 48 * 4 - 1))
