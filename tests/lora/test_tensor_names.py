"""Every spelling of a module is one module, and what is no LoRA half is refused with what it is."""

from __future__ import annotations

import pytest

from intaglio.errors import AdapterError
from intaglio.lora.tensor_names import PairNames, pair_tensors, parse_tensor_name

LABEL = "adapter_model.safetensors"


@pytest.mark.parametrize("prefix", ["", "base_model.model.", "module.base_model.model.", "_orig_mod.base_model.model."])
@pytest.mark.parametrize("adapter", ["", ".default", ".my-adapter_2"])
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
def test_every_spelling_is_understood(prefix: str, adapter: str, path: str, key: tuple[int, str]) -> None:
    for half in "AB":
        tensor = parse_tensor_name(f"{prefix}{path}.lora_{half}{adapter}.weight", LABEL)
        assert (tensor.key, tensor.half, tensor.path) == (key, half, path)
        assert (tensor.adapter or "") == adapter.removeprefix(".")


def test_wrappers_inside_a_path_are_taken_out() -> None:
    name = (
        "_fsdp_wrapped_module.base_model.model._orig_mod.model.layers.2._fsdp_wrapped_module."
        "_checkpoint_wrapped_module.self_attn.v_proj.lora_B.default.weight"
    )
    assert parse_tensor_name(name, LABEL).path == "model.layers.2.self_attn.v_proj"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("model.layers.0.self_attn.q_proj.lora_magnitude_vector", "belongs to DoRA"),
        ("model.layers.0.self_attn.q_proj.lora_magnitude_vector.default.weight", "belongs to DoRA"),
        ("model.layers.0.self_attn.q_proj.lora_B.bias", "is a bias"),
        ("model.layers.0.self_attn.q_proj.bias", "is a bias"),
        ("model.layers.0.self_attn.q_proj.lora_diag.default", "belongs to KaSA"),
        ("model.layers.0.self_attn.q_proj.base_layer.weight", "is a weight of the base model"),
        ("model.embed_tokens.lora_embedding_A", "is a LoRA on the embedding"),
        ("model.embed_tokens.base_layer.weight", "is a weight of the base model"),
        ("model.embed_tokens.weight", "replaces the embedding"),
        ("model.embed_tokens.modules_to_save.default.weight", "replaces a whole module"),
        ("model.embed_tokens.token_adapter.trainable_tokens_delta", "holds trained token rows"),
        ("lm_head.lora_A.weight", "changes the output head"),
        ("lm_head.weight", "changes the output head"),
        ("score.weight", "belongs to a classification head"),
        (
            "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
            "belongs to the vision tower",
        ),
        ("model.multi_modal_projector.mm_input_projection.lora_A.weight", "belongs to the image projector"),
        ("model.layers.0.self_attn.q_norm.lora_A.weight", "is no LoRA weight of a Gemma layer"),
        ("model.layers.0.mlp.experts.0.up_proj.lora_A.weight", "is no LoRA weight of a Gemma layer"),
        ("transformer.h.0.attn.c_attn.lora_A.weight", "is no LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.lora_A", "is no LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight.weight.weight", "is no LoRA weight of a Gemma layer"),
        ("model.layers.00.self_attn.q_proj.lora_A.weight", "is no LoRA weight of a Gemma layer"),
        ("model.layers.-1.self_attn.q_proj.lora_A.weight", "is no LoRA weight of a Gemma layer"),
        ("model.layers.٣.self_attn.q_proj.lora_A.weight", "is no LoRA weight of a Gemma layer"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight\n", "is no LoRA weight of a Gemma layer"),
        ("", "is no LoRA weight of a Gemma layer"),
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
    pairs = pair_tensors(names, LABEL)
    assert list(pairs) == [(2, "mlp.up_proj"), (2, "self_attn.q_proj"), (10, "mlp.up_proj"), (10, "self_attn.q_proj")]
    assert pairs[2, "mlp.up_proj"] == PairNames(
        "model.layers.2.mlp.up_proj.lora_A.weight",
        "model.layers.2.mlp.up_proj.lora_B.weight",
        "model.layers.2.mlp.up_proj",
    )


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
        ([f"{Q}.lora_A.weight", f"base_model.model.{Q}.lora_A.weight"], "are the same one, spelt twice"),
        ([f"{Q}.lora_A.weight", f"language_model.{Q}.lora_B.weight"], "spell their module differently"),
        ([f"{Q}.lora_A.one.weight", f"{Q}.lora_B.one.weight", f"{V}.lora_A.two.weight"], "'one' and 'two'"),
    ],
)
def test_tensors_that_do_not_make_up_one_adapter_are_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(AdapterError) as refusal:
        pair_tensors(names, LABEL)
    assert complaint in str(refusal.value)
