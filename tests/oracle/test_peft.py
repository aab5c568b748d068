"""Our adapters against PEFT, live: PEFT makes and saves them, we read its files, its mixed batch is the judge."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.loader import load_gemma
from intaglio.ops.reference import ReferenceOps
from tests.golden import cases
from tests.helpers.checkpoints import FAMILIES, random_weights, tiny_config, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.oracle.transformers_peft import add_peft_adapter, load_hf, peft_mixed_logits

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

LAYER_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MODULES = [*LAYER_MODULES, "embed_tokens", "lm_head"]
PATTERNS = [
    "q_proj",
    "mlp.down_proj",
    "layers.1.self_attn.v_proj",
    r".*\.[02]\.mlp\.(up|gate)_proj",
    "^o_proj",
    "lm_head",
]

# An adapter many times as strong as its base magnifies rounding: PEFT itself was measured 1.1e-4 from float64.
MAGNIFIED = 5


@st.composite
def adapters(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a LoraConfig."""
    targets = st.one_of(
        st.none(),
        st.just("all-linear"),
        st.just(r".*layers\.[12]\.(self_attn|mlp)\.(q|k|v|down)_proj"),
        st.lists(st.sampled_from(MODULES), min_size=1, unique=True),
    )
    chosen: dict[str, Any] = {
        "r": draw(st.integers(1, 9)),
        "lora_alpha": draw(st.integers(1, 9)),
        "use_rslora": draw(st.booleans()),
        "target_modules": draw(targets),
        "rank_pattern": draw(st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 9), max_size=3)),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 9), max_size=3)),
    }
    # PEFT refuses layers for an expression, and for targets that are in no layer.
    if chosen["target_modules"] is None or not set(LAYER_MODULES).isdisjoint(chosen["target_modules"]):
        chosen["layers_to_transform"] = draw(st.sampled_from([None, [1], [0, 2], 1]))
    return chosen


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    family=st.sampled_from(FAMILIES),
    chosen=st.lists(adapters(), min_size=1, max_size=3),
    rows=st.lists(st.integers(-1, 2), min_size=1, max_size=7),
    seed=st.integers(0, 2**32 - 1),
    chunk=st.sampled_from([None, 1, 7]),
)
def test_any_mixed_batch_equals_the_mixed_batch_of_peft(
    family: Any, chosen: list[dict[str, Any]], rows: list[int], seed: int, chunk: int | None
) -> None:
    config = tiny_config(family)
    names = [cases.BASE if row < 0 else f"adapter{row % len(chosen)}" for row in rows]
    ids = np.random.default_rng(seed).integers(0, config["vocab_size"], (len(names), 21), dtype=np.int32)
    with tempfile.TemporaryDirectory() as name:
        folder = write_hf_folder(Path(name) / "base", config, random_weights(config, seed))
        judge = load_hf(folder)
        for index, adapter in enumerate(chosen):
            judge = add_peft_adapter(judge, f"adapter{index}", adapter, seed=seed + index)
        expected = peft_mixed_logits(judge, ids, names)
        judge.save_pretrained(Path(name) / "adapters", save_embedding_layers=False)
        model = load_gemma(folder, ReferenceOps())
        read: dict[str, Any] = {
            adapter: read_peft_adapter(Path(name) / "adapters" / adapter, model.config, AdapterLimits()).tensors
            for adapter in judge.peft_config
        }
    prompts = [Prompt(row.tolist(), read.get(adapter)) for row, adapter in zip(ids, names, strict=True)]
    for ours, theirs in zip(run_prompts(model, prompts, chunk=chunk), expected, strict=True):
        assert np.abs(ours - theirs).max() <= MAGNIFIED * cases.tiny_tolerance(theirs)
