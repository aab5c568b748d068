"""Every spelling of a module is one module, and what is no LoRA half is refused with what it is."""

from __future__ import annotations

from itertools import product

import pytest

from intaglio.errors import AdapterError
from intaglio.lora.peft.tensor_names import PairNames, SingleName, parse_tensor_name, sort_tensors
from intaglio.ops import MODEL

LABEL = "adapter_model.safetensors"


PREFIXES = ("", "base_model.model.", "module.base_model.model.", "_orig_mod.base_model.model.")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("model.layers.0.self_attn.q_proj", (0, "self_attn.q_proj")),
        ("model.layers.17.mlp.down_proj", (17, "mlp.down_proj")),
        ("layers.3.mlp.gate_proj", (3, "mlp.gate_proj")),
        ("model.language_model.layers.5.self_attn.o_proj", (5, "self_attn.o_proj")),
        ("language_model.model.layers.5.self_attn.k_proj", (5, "self_attn.k_proj")),
        ("language_model.layers.61.mlp.up_proj", (61, "mlp.up_proj")),
    ],
)
def test_every_spelling_is_understood(path: str, key: tuple[int, str]) -> None:
    for prefix, adapter, half in product(PREFIXES, ("", ".default", ".my-adapter_2"), "AB"):
        tensor = parse_tensor_name(f"{prefix}{path}.lora_{half}{adapter}.weight", LABEL)
        assert (tensor.key, tensor.kind, tensor.path) == (key, half, path)
        assert (tensor.adapter or "") == adapter.removeprefix(".")


LAYER, TABLE, LAST = "model.layers.2", "model.embed_tokens", "lm_head"


@pytest.mark.parametrize(
    ("name", "kind", "key", "adapter"),
    [
        (f"{LAYER}.mlp.up_proj.lora_B.bias", "bias", (2, "mlp.up_proj"), None),
        (f"{LAYER}.mlp.up_proj.lora_B.one.bias", "bias", (2, "mlp.up_proj"), "one"),
        (f"{LAYER}.mlp.up_proj.lora_magnitude_vector", "magnitude", (2, "mlp.up_proj"), None),
        (f"{LAYER}.mlp.up_proj.lora_magnitude_vector.weight", "magnitude", (2, "mlp.up_proj"), None),
        (f"{LAYER}.mlp.up_proj.lora_magnitude_vector.one", "magnitude", (2, "mlp.up_proj"), "one"),
        (f"{LAYER}.mlp.up_proj.lora_magnitude_vector.one.weight", "magnitude", (2, "mlp.up_proj"), "one"),
        (f"{TABLE}.lora_embedding_A", "A", (MODEL, TABLE[6:]), None),
        (f"{TABLE}.lora_embedding_B.one", "B", (MODEL, TABLE[6:]), "one"),
        (f"{TABLE}.lora_magnitude_vector.one.weight", "magnitude", (MODEL, TABLE[6:]), "one"),
        (f"{TABLE}.token_adapter.trainable_tokens_delta", "rows", (MODEL, TABLE[6:]), None),
        (f"{TABLE}.token_adapter.trainable_tokens_delta.one", "rows", (MODEL, TABLE[6:]), "one"),
        (f"{TABLE}.token_adapter.base_layer.weight", "base", (MODEL, TABLE[6:]), None),
        (f"{TABLE}.base_layer.weight", "base", (MODEL, TABLE[6:]), None),
        (f"{TABLE}.original_module.weight", "base", (MODEL, TABLE[6:]), None),
        (f"{TABLE}.weight", "saved", (MODEL, TABLE[6:]), None),
        (f"{TABLE}.modules_to_save.one.weight", "saved", (MODEL, TABLE[6:]), "one"),
        (f"{TABLE}.modules_to_save.weight", "saved", (MODEL, TABLE[6:]), None),
        ("model.language_model.embed_tokens.weight", "saved", (MODEL, TABLE[6:]), None),
        (f"{LAST}.lora_A.one.weight", "A", (MODEL, LAST), "one"),
        (f"{LAST}.lora_B.bias", "bias", (MODEL, LAST), None),
        (f"{LAST}.token_adapter.trainable_tokens_delta", "rows", (MODEL, LAST), None),
        (f"{LAST}.base_layer.weight", "base", (MODEL, LAST), None),
        (f"language_model.{LAST}.weight", "saved", (MODEL, LAST), None),
        (f"{LAYER}.input_layernorm.weight", "saved", (2, "input_layernorm"), None),
        (
            f"{LAYER}.pre_feedforward_layernorm.modules_to_save.one.weight",
            "saved",
            (2, "pre_feedforward_layernorm"),
            "one",
        ),
        (f"{LAYER}.self_attn.k_norm.weight", "saved", (2, "self_attn.k_norm"), None),
        ("model.norm.weight", "saved", (MODEL, "norm"), None),
        ("language_model.model.norm.weight", "saved", (MODEL, "norm"), None),
    ],
)
def test_tensors_beside_the_lora_pairs_are_understood(
    name: str, kind: str, key: tuple[int, str], adapter: str | None
) -> None:
    for prefix in PREFIXES:
        tensor = parse_tensor_name(prefix + name, LABEL)
        assert (tensor.kind, tensor.key, tensor.adapter) == (kind, key, adapter)
        assert name.startswith(f"{tensor.path}.")


def test_wrappers_inside_a_path_are_taken_out() -> None:
    name = (
        "_fsdp_wrapped_module.base_model.model._orig_mod.model.layers.2._fsdp_wrapped_module."
        "_checkpoint_wrapped_module.self_attn.v_proj.lora_B.default.weight"
    )
    assert parse_tensor_name(name, LABEL).path == "model.layers.2.self_attn.v_proj"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.layers.0.self_attn.q_proj.weight", "replaces a whole linear layer"),
        ("model.layers.0.self_attn.q_proj.modules_to_save.default.weight", "replaces a whole linear layer"),
        ("model.layers.0.self_attn.q_proj.original_module.weight", "is a weight of the base model"),
        ("model.layers.0.input_layernorm.base_layer.weight", "is a weight of the base model"),
        ("model.norm.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.embed_tokens.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("lm_head.lora_embedding_A", "is not a LoRA weight of a Gemma layer"),
        ("model.embed_tokens.lora_B.bias", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.bias", "is a bias"),
        ("model.layers.0.self_attn.q_proj.lora_diag.default", "belongs to KaSA"),
        ("model.layers.0.self_attn.q_proj.base_layer.weight", "is a weight of the base model"),
        ("score.weight", "belongs to a classification head"),
        (
            "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
            "belongs to the vision tower",
        ),
        ("model.multi_modal_projector.mm_input_projection.lora_A.weight", "belongs to the image projector"),
        ("model.layers.0.self_attn.q_norm.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.0.mlp.experts.0.up_proj.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("transformer.h.0.attn.c_attn.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.lora_A", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight.weight.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.00.self_attn.q_proj.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.-1.self_attn.q_proj.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.٣.self_attn.q_proj.lora_A.weight", "is not a LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight\n", "is not a LoRA weight of a Gemma layer"),
        ("", "is not a LoRA weight of a Gemma layer"),
    ],
)
def test_a_tensor_that_is_not_served_is_refused_with_what_it_is(name: str, what: str) -> None:
    for spelling in (name, f"base_model.model.{name}"):
        with pytest.raises(AdapterError) as refusal:
            parse_tensor_name(spelling, LABEL)
        assert f"{LABEL}: tensor {spelling!r} {what}" in str(refusal.value)


def test_a_name_that_would_disturb_a_terminal_or_a_reply_is_shown_escaped() -> None:
    with pytest.raises(AdapterError) as refusal:
        parse_tensor_name("a\x1b[31m\n\ud800", LABEL)
    assert r"'a\x1b[31m\n\ud800'" in str(refusal.value)
    assert str(refusal.value).encode()  # a lone surrogate as it is could not be sent


def test_pairs_come_in_order_of_layer_and_projection() -> None:
    names = [
        f"model.layers.{layer}.{projection}.lora_{half}.weight"
        for half in "BA"
        for layer in (10, 2)
        for projection in ("self_attn.q_proj", "mlp.up_proj")
    ]
    pairs = sort_tensors(names, LABEL).pairs
    assert list(pairs) == [(2, "mlp.up_proj"), (2, "self_attn.q_proj"), (10, "mlp.up_proj"), (10, "self_attn.q_proj")]
    assert pairs[2, "mlp.up_proj"] == PairNames(
        "model.layers.2.mlp.up_proj.lora_A.weight",
        "model.layers.2.mlp.up_proj.lora_B.weight",
        "model.layers.2.mlp.up_proj",
    )


def test_everything_of_one_module_comes_together() -> None:
    lora = ["lm_head.lora_A.one.weight", "lm_head.lora_B.one.weight", "lm_head.lora_B.one.bias"]
    more = ["lm_head.base_layer.weight", f"{TABLE}.token_adapter.trainable_tokens_delta.one", "model.norm.weight"]
    names = sort_tensors([*more, *lora, f"{TABLE}.weight"], LABEL)
    assert names.pairs == {(MODEL, "lm_head"): PairNames(lora[0], lora[1], "lm_head", bias=lora[2])}
    assert names.base == {"lm_head": SingleName(more[0], "lm_head")}
    assert names.rows == {"embed_tokens": SingleName(more[1], TABLE)}
    assert names.norms == {(MODEL, "norm"): SingleName(more[2], "model.norm")}
    assert names.saved == {"embed_tokens": SingleName(f"{TABLE}.weight", TABLE)}


Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "holds no tensors"),
        ([f"{Q}.lora_A.weight"], f"tensor '{Q}.lora_A.weight' has no lora_B beside it"),
        (
            [f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", f"{V}.lora_B.weight"],
            f"tensor '{V}.lora_B.weight' has no lora_A beside it",
        ),
        ([f"{Q}.lora_A.weight", f"base_model.model.{Q}.lora_A.weight"], "are the same one under two spellings"),
        ([f"{Q}.lora_A.weight", f"language_model.{Q}.lora_B.weight"], "spell their module differently"),
        ([f"{Q}.lora_B.bias"], f"tensor '{Q}.lora_B.bias' has no lora_A beside it"),
        ([f"{Q}.lora_magnitude_vector", f"{Q}.lora_A.weight"], "has no lora_B beside it"),
        ([f"{TABLE}.lora_embedding_B"], f"tensor '{TABLE}.lora_embedding_B' has no lora_A beside it"),
        (
            ["lm_head.weight", "lm_head.modules_to_save.weight"],  # as PEFT writes with save_embedding_layers=True
            "are the same one under two spellings; save the adapter again with save_embedding_layers=False",
        ),
        (["model.norm.weight", "module.model.norm.weight"], "are the same one under two spellings; keep one"),
        ([f"{Q}.lora_A.one.weight", f"{Q}.lora_B.one.weight", f"{V}.lora_A.two.weight"], "'one' and 'two'"),
    ],
)
def test_tensors_that_do_not_make_up_one_adapter_are_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(AdapterError) as refusal:
        sort_tensors(names, LABEL)
    assert complaint in str(refusal.value)
