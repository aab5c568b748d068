"""Targets, ranks and scalings of single modules, decided as PEFT decides them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from intaglio.errors import AdapterError
from intaglio.lora.peft.config import PeftConfig
from intaglio.lora.peft.module_rules import ModuleRules
from intaglio.ops import MODEL

PLAIN = PeftConfig(
    r=4,
    lora_alpha=8.0,
    use_rslora=False,
    rank_pattern={},
    alpha_pattern={},
    target_modules=("q_proj", "v_proj"),
    exclude_modules=(),
    layers_to_transform=None,
    model_type=None,
    base_model=None,
)
Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.10.mlp.down_proj"


def rules(**changes: Any) -> ModuleRules:
    return ModuleRules(replace(PLAIN, **changes))


def test_scaling_is_alpha_over_rank_and_over_its_root_with_rslora() -> None:
    assert rules().scaling(Q, 4) == 2.0
    assert rules(use_rslora=True).scaling(Q, 4) == 4.0
    assert rules(r=7, lora_alpha=-3.5, use_rslora=True).scaling(Q, 7) == -3.5 / math.sqrt(7)
    assert rules(lora_alpha=0.0).scaling(Q, 4) == 0.0


def test_patterns_change_rank_and_alpha_of_the_modules_they_match() -> None:
    both = rules(rank_pattern={"q_proj": 2}, alpha_pattern={r".*\.1[0-9]\.mlp\..*": 3.0, "self_attn.q_proj": 16.0})
    assert (both.rank(Q), both.scaling(Q, 2)) == (2, 8.0)
    assert (both.rank(DOWN), both.scaling(DOWN, 4)) == (4, 0.75)


@pytest.mark.parametrize(
    ("key", "matches"),
    [
        ("q_proj", True),
        ("self_attn.q_proj", True),
        ("^model.layers.0.self_attn.q_proj", True),
        (r"model\.layers\.[01]\.self_attn\.q_proj", True),
        ("layers.0.*", True),
        ("q_pro", False),  # to the end
        ("_proj", False),  # from a dot
        ("layers.0.self_attn", False),
        ("layers.1.self_attn.q_proj", False),
        ("^layers.0.self_attn.q_proj", False),
        ("(q|k)_proj", True),
    ],
)
def test_a_key_matches_from_a_dot_to_the_end(key: str, matches: bool) -> None:
    assert rules(rank_pattern={key: 2}).rank(Q) == (2 if matches else 4)


def test_of_overlapping_keys_the_first_in_file_order_holds() -> None:
    assert rules(rank_pattern={"q_proj": 2, "layers.0.*": 3}).rank(Q) == 2
    assert rules(rank_pattern={"layers.0.*": 3, "q_proj": 2}).rank(Q) == 3


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, True),
        ({"target_modules": (Q,)}, True),
        ({"target_modules": ("self_attn.q_proj",)}, True),
        ({"target_modules": ("_proj", "layers.0", "k_proj", "")}, False),
        ({"target_modules": ()}, False),
        ({"target_modules": "all-linear"}, True),
        ({"target_modules": "All-Linear"}, True),
        ({"target_modules": r".*\.(q|v)_proj"}, True),
        ({"target_modules": "q_proj"}, False),  # an expression has to match the whole path
        ({"target_modules": ""}, False),
        ({"layers_to_transform": frozenset({0, 2})}, True),
        ({"layers_to_transform": frozenset({1, 2})}, False),
        ({"layers_to_transform": frozenset({0}), "layers_pattern": ("layers",)}, True),
        ({"layers_to_transform": frozenset({0}), "layers_pattern": ("h", r"model\.l[a-y]+s")}, True),
        ({"layers_to_transform": frozenset({0}), "layers_pattern": ("h",)}, False),
        ({"layers_to_transform": frozenset({1}), "target_modules": (Q,)}, True),  # a whole path says more
        ({"exclude_modules": ("q_proj",)}, False),
        ({"exclude_modules": ("layers.0",)}, True),
        ({"exclude_modules": r".*layers\.0\..*"}, False),
        ({"exclude_modules": r"layers\.0"}, True),
        ({"exclude_modules": "", "target_modules": "all-linear"}, True),
    ],
)
def test_targets_layers_and_exclusions_decide_which_modules_are_adapted(changes: dict[str, Any], covered: bool) -> None:
    assert rules(**changes).covers(Q, layer=0) is covered


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({"target_modules": ("q_proj", "embed_tokens", "lm_head")}, True),
        ({"target_modules": r".*embed_tokens|lm_head"}, True),
        ({"target_modules": ("q_proj",)}, False),
        ({"target_modules": "all-linear"}, False),  # PEFT leaves the head out, and the embedding is not linear
        ({"target_modules": ("model.embed_tokens", "lm_head"), "layers_to_transform": frozenset({0})}, True),
        ({"target_modules": r".*", "exclude_modules": ("embed_tokens", "lm_head")}, False),
    ],
)
def test_the_embedding_and_the_head_are_adapted_where_they_are_named(changes: dict[str, Any], covered: bool) -> None:
    assert rules(**changes).covers("model.embed_tokens", MODEL) is covered
    assert rules(**changes).covers("lm_head", MODEL) is covered


def test_layers_to_transform_leaves_out_what_is_in_no_layer() -> None:
    some = rules(target_modules=("embed_tokens", "lm_head"), layers_to_transform=frozenset({0}))
    assert not some.covers("model.embed_tokens", MODEL)
    assert some.covers("lm_head", MODEL)  # its whole path


def test_saved_modules_and_tokens_are_named_by_the_end_of_a_path() -> None:
    some = rules(
        modules_to_save=("_norm", "model.norm", "0.input_layernorm"), token_indices={"tokens": (3, 1), "lm_head": (7,)}
    )
    saved = ["model.norm", "model.layers.4.self_attn.q_norm", "model.layers.10.input_layernorm"]
    assert [some.saves(path) for path in saved] == [True] * 3
    assert not some.saves("model.layers.1.input_layernorm") and not some.saves("lm_head")
    assert some.token_ids("model.language_model.embed_tokens") == (3, 1)
    assert some.token_ids("lm_head") == (7,)
    assert some.token_ids(Q) == ()


@pytest.mark.parametrize(
    "key",
    [
        r"model.layers.{layer}.{name}",
        r"^model\.layers\.{layer}\.{name}$",
        r".*\.{layer}\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj",
    ],
)
def test_the_largest_gemma_may_have_an_expression_for_every_module_or_layer(key: str) -> None:
    """434 modules, with rank and alpha each: the bound on matching is for none of them."""
    names = [f"{part}_proj" for part in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o")]
    names += [f"mlp.{part}_proj" for part in ("gate", "up", "down")]
    keys = {key.format(layer=layer, name=name): 1 + layer for layer in range(62) for name in names}
    some = rules(rank_pattern=keys, alpha_pattern={key: 2.0 * rank for key, rank in keys.items()})
    for layer in range(62):
        for name in names:
            path = f"model.layers.{layer}.{name}"
            assert (some.rank(path), some.scaling(path, 1 + layer)) == (1 + layer, 2.0)


def test_expressions_are_bounded_together() -> None:
    """Each alone is short enough; parsing them all would take seconds."""
    with pytest.raises(AdapterError, match=r"target_modules.* 80\d+ characters.*limit"):
        rules(rank_pattern={f"{n}{'a?' * 100}": 4 for n in range(200)}, alpha_pattern={"b?" * 2000 * 10: 8.0})


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules"])
def test_a_wrong_expression_is_found_before_any_module_is_asked(setting: str) -> None:
    with pytest.raises(AdapterError, match=rf"{setting} '\(q_proj' is not a regular expression"):
        rules(**{setting: "(q_proj"})


@pytest.mark.parametrize("setting", ["rank_pattern", "alpha_pattern"])
def test_a_wrong_pattern_key_is_shown_as_the_file_has_it(setting: str) -> None:
    with pytest.raises(AdapterError, match=setting):
        rules(**{setting: {"*q_proj": 4}})
