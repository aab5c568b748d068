"""Gemma 1, 2 and 3 against stored logits of transformers and PEFT (`tests/golden`), with every use of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from intaglio.model.bundled import bundled_model_path
from intaglio.model.gemma import Gemma, kv_groups
from intaglio.model.loader import load_gemma
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Settings
from tests.golden import cases
from tests.golden.models import golden_adapters, tiny_parts
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_gguf, write_hf_folder
from tests.helpers.forward import F32, Prompt, run_prompts

family_cases = pytest.mark.parametrize("family", FAMILIES)
adapter_families = pytest.mark.parametrize("family", list(cases.MIXED))


def distance(one: F32, other: F32) -> float:
    assert one.shape == other.shape
    return float(np.abs(one - other).max())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gemma]:
    """Each family, written to a folder and loaded from it like a user's model."""
    folder = tmp_path_factory.mktemp("tiny")
    return {
        family: load_gemma(write_hf_folder(folder / family, *cases.tiny_model(family)), ReferenceOps())
        for family in FAMILIES
    }


@pytest.mark.parametrize(
    "name", [f"tiny_{family}" for family in FAMILIES] + [f"mixed_{family}" for family in cases.MIXED]
)
def test_weights_are_the_ones_the_golden_logits_were_made_with(name: str) -> None:
    family = next(family for family in FAMILIES if name.split("_", 1)[1] == family)
    assert cases.checksum(cases.tiny_model(family)[1]) == str(cases.load(name)["weights_sha256"])


@family_cases
@pytest.mark.parametrize("chunk", [None, 1, 7, 13], ids=["whole", "token_by_token", "by_7", "by_13"])
def test_logits_equal_transformers_for_every_chunk_size(tiny: dict[str, Gemma], family: Family, chunk: int) -> None:
    golden = cases.load(f"tiny_{family}")
    (logits,) = run_prompts(tiny[family], [Prompt(golden["ids"].tolist())], chunk=chunk)
    assert distance(logits, golden["logits"]) <= cases.tiny_tolerance(golden["logits"])


@family_cases
@pytest.mark.parametrize("block_size", [1, 3, 16, 133])
def test_block_size_block_order_and_kept_blocks_change_nothing(
    tiny: dict[str, Gemma], family: Family, block_size: int
) -> None:
    golden = cases.load(f"tiny_{family}")
    for seed, keep_window_only in ((1, True), (2, False)):
        (logits,) = run_prompts(
            tiny[family],
            [Prompt(golden["ids"].tolist())],
            chunk=11,
            block_size=block_size,
            seed=seed,
            keep_window_only=keep_window_only,
        )
        assert distance(logits, golden["logits"]) <= cases.tiny_tolerance(golden["logits"])


@family_cases
def test_prompts_of_different_lengths_do_not_see_each_other(tiny: dict[str, Gemma], family: Family) -> None:
    golden = cases.load(f"tiny_{family}")
    ids = golden["ids"].tolist()
    prompts = [Prompt(ids[:length]) for length in (1, 40, 2, 7, 33)]
    for chunk in (None, 3):
        for prompt, logits in zip(prompts, run_prompts(tiny[family], prompts, chunk=chunk), strict=True):
            expected = golden["logits"][: len(prompt.ids)]
            assert distance(logits, expected) <= cases.tiny_tolerance(golden["logits"])


@adapter_families
@pytest.mark.parametrize("chunk", [None, 1, 7], ids=["whole", "token_by_token", "by_7"])
def test_mixed_batch_equals_the_mixed_batch_of_peft(tiny: dict[str, Gemma], family: Family, chunk: int | None) -> None:
    golden, adapters = cases.load(f"mixed_{family}"), golden_adapters(family, tiny[family].config)
    prompts = [
        Prompt(ids.tolist(), adapters[name]) for ids, name in zip(golden["ids"], cases.MIXED[family], strict=True)
    ]
    logits = run_prompts(tiny[family], prompts, chunk=chunk, wanted=cases.MIXED_ROWS)
    for name, ours, theirs in zip(cases.MIXED[family], logits, golden["logits"], strict=True):
        assert distance(ours, theirs) <= cases.tiny_tolerance(theirs), name


@adapter_families
def test_each_adapter_alone_equals_its_row_of_the_mixed_batch(tiny: dict[str, Gemma], family: Family) -> None:
    golden, adapters = cases.load(f"mixed_{family}"), golden_adapters(family, tiny[family].config)
    for ids, name, theirs in zip(golden["ids"], cases.MIXED[family], golden["logits"], strict=True):
        (ours,) = run_prompts(tiny[family], [Prompt(ids.tolist(), adapters[name])], wanted=cases.MIXED_ROWS)
        assert distance(ours, theirs) <= cases.tiny_tolerance(theirs), name


@adapter_families
def test_adapter_equals_base_with_the_product_added_to_its_weights(family: Family) -> None:
    parts = tiny_parts(family)
    ids = cases.load(f"mixed_{family}")["ids"][0].tolist()
    for name, tensors in golden_adapters(family, parts.config).items():
        if tensors is None:
            continue
        merged = dict(parts.checkpoint.tensors)
        for (layer, projection), pair in tensors.pairs.items():
            merged[f"model.layers.{layer}.{projection}.weight"] = (
                merged[f"model.layers.{layer}.{projection}.weight"] + pair.b @ pair.a
            )
        other = type(parts)(parts.config, type(parts.checkpoint)(merged, norm_includes_one=False)).build()
        (expected,) = run_prompts(other, [Prompt(ids)])
        (logits,) = run_prompts(parts.build(), [Prompt(ids, tensors)])
        assert distance(logits, expected) <= 2 * cases.tiny_tolerance(expected), name


@family_cases
def test_gguf_and_safetensors_of_one_model_give_the_same_logits(tmp_path: Path, family: Family) -> None:
    config = tiny_config(family)
    if family != "gemma":
        config["query_pre_attn_scalar"] = config["head_dim"]  # a GGUF file has no key for another value
    weights = random_weights(config, 5)
    folder = load_gemma(write_hf_folder(tmp_path / "folder", config, weights), ReferenceOps())
    file = load_gemma(write_gguf(tmp_path / "model.gguf", config, weights), ReferenceOps())
    prompt = Prompt(cases.load(f"tiny_{family}")["ids"].tolist())
    (from_folder,), (from_file,) = run_prompts(folder, [prompt]), run_prompts(file, [prompt])
    assert distance(from_folder, from_file) <= cases.tiny_tolerance(from_folder)


@family_cases
def test_bfloat16_format_computes_what_float32_does_with_the_same_weights(tmp_path: Path, family: Family) -> None:
    folder = write_hf_folder(tmp_path, *cases.tiny_model(family), dtype="bfloat16")
    prompt = Prompt(cases.load(f"tiny_{family}")["ids"].tolist())
    narrow, wide = load_gemma(folder, ReferenceOps()), load_gemma(folder, ReferenceOps(), "f32")
    (ours,), (expected,) = run_prompts(narrow, [prompt], chunk=9), run_prompts(wide, [prompt])
    assert distance(ours, expected) <= cases.tiny_tolerance(expected)


@family_cases
def test_bfloat16_checkpoint_stays_near_the_float32_one(tmp_path: Path, family: Family) -> None:
    golden = cases.load(f"tiny_{family}")
    model = load_gemma(write_hf_folder(tmp_path, *cases.tiny_model(family), dtype="bfloat16"), ReferenceOps())
    (logits,) = run_prompts(model, [Prompt(golden["ids"].tolist())])
    cases.check_bfloat16(logits, golden["logits"])


def test_layers_with_a_window_and_without_keep_their_keys_apart() -> None:
    groups = {family: kv_groups(tiny_parts(family).config) for family in FAMILIES}
    assert [(g.window, g.layers) for g in groups["gemma"]] == [(None, (0, 1, 2))]
    assert [(g.window, g.layers) for g in groups["gemma2"]] == [(None, (1, 3)), (8, (0, 2))]
    assert [(g.window, g.layers) for g in groups["gemma3_text"]] == [(None, (5,)), (8, (0, 1, 2, 3, 4, 6))]


# -------------------------------------------------------------------------------------------------- the real 270M


@pytest.fixture(scope="module")
def real() -> Iterator[Gemma]:
    yield load_gemma(bundled_model_path(Settings().cache_path), ReferenceOps(), "f32")


@pytest.mark.slow
def test_the_real_270m_continues_the_capital_of_france_as_transformers_does(real: Gemma) -> None:
    golden = cases.load("gemma3_270m")
    ids = golden["short_ids"].tolist()
    (logits,) = run_prompts(real, [Prompt(ids)], wanted=[len(ids) - 1])
    best = np.argsort(-logits[0], kind="stable")[:5]
    assert best.tolist() == golden["short_top_ids"].tolist()
    assert distance(logits[0][best], golden["short_top_logits"]) <= cases.BIG_TOLERANCE
    # The published figures of the same prompt: " the", " a", " Paris", " one", " known".
    assert logits[0][best] == pytest.approx([19.091, 18.548, 18.269, 18.113, 17.784], abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 128], ids=["whole", "by_128"])
def test_the_real_270m_equals_transformers_within_and_beyond_its_window(real: Gemma, chunk: int | None) -> None:
    golden = cases.load("gemma3_270m")
    (logits,) = run_prompts(real, [Prompt(golden["ids"].tolist())], wanted=cases.BIG_ROWS, chunk=chunk, block_size=16)
    cases.check_big(logits, golden)
