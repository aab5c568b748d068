"""Any adapter that PEFT makes and computes with: what we read from its files gives the logits that PEFT gives.

PEFT makes it, saves it, and loads the folder again to be the judge, since that is what its users do. What PEFT can save
and not compute, we refuse.
"""

from __future__ import annotations

import re
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, assume, event, given, settings
from hypothesis import strategies as st

from intaglio.errors import AdapterError
from intaglio.lora.peft.base_tables import checkpoint_tables
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.loader import load_gemma
from intaglio.ops.reference import ReferenceOps
from tests.golden import cases
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.oracle.transformers_peft import load_hf, peft_logits, save_random_adapter

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"]
PATTERNS = [
    "q_proj",
    "mlp.down_proj",
    r".*\.[02]\.mlp\.(up|gate)_proj",
    "^lm_head",
    "embed_tokens",
    "model.embed_tokens",
    r"^model\.layers\.0\.self_attn\.[qv]_proj$",
    "layers.1.*",
    "_proj",
    r"self_attn\.(?!q).*|down_proj$",
]
EXPRESSIONS = [
    "all-linear",
    r".*layers\.1\.self_attn\.[qv]_proj|.*embed_tokens|lm_head",
    r"model\.layers\.\d+\.(?!mlp).*_proj",
    r".*(?<!up)_proj",
    # As Unsloth writes it.
    r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:k_proj|v_proj|up_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:k_proj|v_proj|up_proj)))",
]
TABLES = ["embed_tokens", "lm_head", "model.embed_tokens"]
LAYERS = {"gemma": 2, "gemma2": 2, "gemma3_text": 6}  # the sixth of Gemma 3 is the first without a window
NORMS = {
    "gemma": ["input_layernorm", "1.post_attention_layernorm", "norm"],
    "gemma2": ["pre_feedforward_layernorm", "layers.0.post_feedforward_layernorm", "model.norm"],
    "gemma3_text": ["q_norm", "self_attn.k_norm", "post_attention_layernorm"],
}

# An adapter many times as strong as its base magnifies rounding: PEFT itself was measured 1.1e-4 from float64.
MAGNIFIED = 5

# What PEFT saves, and loads again, and we refuse all the same, with the reason.
REFUSED = [
    # PEFT gives a tied head the embedding's matrices, and scales them by the rank that the config has for the head.
    r"lora_A.weight' has rank \d+; adapter_config.json gives lm_head rank",
    # What it adds to those logits is no row of a table.
    r"lm_head is changed by a LoRA with lora_bias and by trainable_token_indices at once",
    # It takes the first key's rows, and leaves a tied head as it was because of the second.
    r"trainable_token_indices names model.embed_tokens twice",
]


@st.composite
def configs(draw: st.DrawFn, family: Family) -> dict[str, Any]:
    """Settings of a LoraConfig. PEFT does not take all of them together."""
    ids = st.lists(st.integers(0, 255), min_size=1, max_size=3, unique=True)
    chosen: dict[str, Any] = {
        "r": draw(st.integers(1, 4)),
        "lora_alpha": draw(st.integers(1, 9)),
        "use_rslora": draw(st.booleans()),
        "target_modules": draw(
            st.one_of(
                st.sampled_from(EXPRESSIONS),
                st.lists(st.sampled_from(MODULES), min_size=1, max_size=5, unique=True),
            )
        ),
        "exclude_modules": draw(st.sampled_from([None, None, ["layers.0.mlp.up_proj", "q_proj"], r".*\.0\..*"])),
        "rank_pattern": draw(st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 4), max_size=2)),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 9), max_size=2)),
        "modules_to_save": draw(
            st.none() | st.lists(st.sampled_from([*NORMS[family], "embed_tokens", "lm_head"]), max_size=3, unique=True)
        ),
        "trainable_token_indices": draw(
            st.sampled_from([None, None]) | ids | st.dictionaries(st.sampled_from(TABLES), ids, min_size=1)
        ),
        "ensure_weight_tying": draw(st.booleans()),
        "bias": draw(st.sampled_from(["none", "all", "lora_only"])),
    }
    chosen |= {draw(st.sampled_from(["use_dora", "lora_bias", "inference_mode"])): True}
    if isinstance(chosen["target_modules"], list):
        chosen["layers_to_transform"] = draw(st.sampled_from([None, None, [1]]))
        chosen["layers_pattern"] = (
            draw(st.sampled_from([None, "layers", ["h", r"model\.l.*"]])) if chosen["layers_to_transform"] else None
        )
    return chosen


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # not the one that counts what PEFT refuses
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(data=st.data(), family=st.sampled_from(FAMILIES), tied=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_any_adapter_gives_the_logits_of_peft(data: Any, family: Family, tied: bool, seed: int) -> None:
    chosen = data.draw(configs(family))
    config = tiny_config(family, num_hidden_layers=LAYERS[family], tie_word_embeddings=tied)
    ids = np.random.default_rng(seed).integers(0, 256, 21, dtype=np.int32)
    with tempfile.TemporaryDirectory() as name:
        base, folder = write_hf_folder(Path(name) / "base", config, random_weights(config, seed)), Path(name) / "lora"
        judge = load_hf(base)
        try:
            save_random_adapter(deepcopy(judge), folder, chosen, seed)
        except (ValueError, TypeError) as error:
            event(f"PEFT does not take it: {str(error)[:60]}")
            assume(False)
        model = load_gemma(base, ReferenceOps())
        try:
            expected = peft_logits(judge, folder, ids)
        except (ValueError, RuntimeError, AttributeError) as error:
            event(f"PEFT does not compute it: {str(error)[:60]}")
            with pytest.raises(AdapterError):
                read_peft_adapter(folder, model.config, AdapterLimits(), base_tables=checkpoint_tables(base))
            return
        try:
            adapter = read_peft_adapter(folder, model.config, AdapterLimits(), base_tables=checkpoint_tables(base))
        except AdapterError as refusal:
            assert any(re.search(reason, str(refusal)) for reason in REFUSED), (chosen, refusal)
            event(f"refused: {str(refusal)[:90]}")
            return
    (ours,) = run_prompts(model, [Prompt(ids.tolist(), adapter.tensors)])
    event("computed")
    assert np.abs(ours - expected).max() <= MAGNIFIED * cases.tiny_tolerance(expected), chosen


@pytest.mark.parametrize("family", FAMILIES)
def test_the_comparison_notices_swapped_q_and_k(tmp_path: Path, family: Family) -> None:
    """They have one shape where every head has keys of its own; nothing but the arithmetic tells them apart."""
    config = tiny_config(family, num_hidden_layers=2, num_key_value_heads=4)
    base = write_hf_folder(tmp_path / "base", config, random_weights(config, 1))
    save_random_adapter(load_hf(base), tmp_path / "lora", {"r": 2, "target_modules": ["q_proj", "k_proj"]}, 1)
    ids = np.arange(3, 33, dtype=np.int32)
    model, expected = load_gemma(base, ReferenceOps()), peft_logits(load_hf(base), tmp_path / "lora", ids)
    pairs = read_peft_adapter(tmp_path / "lora", model.config, AdapterLimits()).pairs
    other = {"self_attn.q_proj": "self_attn.k_proj", "self_attn.k_proj": "self_attn.q_proj"}
    swapped = {(layer, other[name]): pair for (layer, name), pair in pairs.items()}
    right, wrong = run_prompts(model, [Prompt(ids.tolist(), pairs), Prompt(ids.tolist(), swapped)])
    assert np.abs(right - expected).max() <= cases.tiny_tolerance(expected)
    assert np.abs(wrong - expected).max() > 100 * cases.tiny_tolerance(expected)


def test_an_adapter_of_a_resized_vocabulary_is_refused(tmp_path: Path) -> None:
    config = tiny_config("gemma3_text", num_hidden_layers=2)
    base = write_hf_folder(tmp_path / "base", config, random_weights(config, 1))
    grown = load_hf(base)
    grown.resize_token_embeddings(260)
    save_random_adapter(grown, tmp_path / "lora", {"r": 2, "target_modules": ["q_proj"]}, 1)
    ours = load_gemma(base, ReferenceOps()).config
    with pytest.raises(AdapterError, match=r"\[260, 48\].*\[256, 48\].*vocabulary"):
        read_peft_adapter(tmp_path / "lora", ours, AdapterLimits(), base_tables=checkpoint_tables(base))
