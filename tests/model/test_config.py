"""Configs of the published models, in each spelling, and invalid ones."""

from __future__ import annotations

import math
from typing import Any

import pytest

from intaglio.errors import ModelFormatError
from intaglio.model.config import LayerConfig, ModelConfig, config_from_gguf, config_from_hf, rounded_embed_scale
from tests.helpers.checkpoints import FAMILIES, Family, tiny_config


def published(
    model_type: str, layers: int, heads: int, kv_heads: int, head_dim: int, hidden: int, inner: int, **more: Any
) -> Any:
    vocab = 262_144 if model_type == "gemma3_text" else 256_000
    return {
        "model_type": model_type,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "vocab_size": vocab,
    } | more


GEMMA_7B = published("gemma", 28, 16, 16, 256, 3072, 24576, hidden_act="gelu", max_position_embeddings=8192)
GEMMA_2B = published("gemma", 18, 8, 1, 256, 2048, 16384, hidden_activation=None)
GEMMA2_2B = published("gemma2", 26, 8, 4, 256, 2304, 9216, query_pre_attn_scalar=256, sliding_window=4096)
GEMMA2_9B = published("gemma2", 42, 16, 8, 256, 3584, 14336, query_pre_attn_scalar=256, sliding_window=4096)
GEMMA2_27B = published("gemma2", 46, 32, 16, 128, 4608, 36864, query_pre_attn_scalar=144, sliding_window=4096)
GEMMA3_270M = published("gemma3_text", 18, 4, 1, 256, 640, 2048, query_pre_attn_scalar=256, sliding_window=512)
GEMMA3_1B = published("gemma3_text", 26, 4, 1, 256, 1152, 6912, query_pre_attn_scalar=256, sliding_window=512)


@pytest.mark.parametrize(
    ("raw", "parameters"),
    [
        (GEMMA_7B, 8_537_680_896),
        (GEMMA_2B, 2_506_172_416),
        (GEMMA2_2B, 2_614_341_888),
        (GEMMA2_9B, 9_241_705_984),
        (GEMMA2_27B, 27_227_128_320),
        (GEMMA3_270M, 268_098_176),
        (GEMMA3_1B, 999_885_952),
    ],
    ids=["7b", "2b", "2-2b", "2-9b", "2-27b", "3-270m", "3-1b"],
)
def test_tensors_of_a_published_model_hold_its_published_number_of_parameters(raw: Any, parameters: int) -> None:
    shapes = config_from_hf(raw).tensor_shapes()
    assert sum(math.prod(shape) for shape in shapes.values()) == parameters


def test_gemma_7b_is_wider_inside_its_attention_than_outside() -> None:
    config = config_from_hf(GEMMA_7B)
    assert (config.hidden_size, config.q_size, config.kv_size) == (3072, 4096, 4096)
    assert config.linear_layer_shapes()["self_attn.o_proj"] == (3072, 4096)
    assert config.score_scale == 256**-0.5
    assert set(config.layers) == {LayerConfig(None, 10_000.0, 1.0)}
    assert (config.attn_softcap, config.final_softcap) == (None, None)
    assert not config.has_post_norms
    assert not config.has_qk_norm


def test_gemma_2_alternates_local_and_global_layers_and_has_soft_caps() -> None:
    config = config_from_hf(GEMMA2_27B)
    assert [layer.window for layer in config.layers[:4]] == [4096, None, 4096, None]
    assert {layer.rope_theta for layer in config.layers} == {10_000.0}
    assert config.score_scale == 144**-0.5
    assert (config.attn_softcap, config.final_softcap) == (50.0, 30.0)
    assert config.has_post_norms
    assert not config.has_qk_norm


def test_gemma_3_has_every_sixth_layer_global() -> None:
    config = config_from_hf(GEMMA3_270M)
    assert [i for i, layer in enumerate(config.layers) if layer.window is None] == [5, 11, 17]
    assert set(config.layers) == {LayerConfig(512, 10_000.0, 1.0), LayerConfig(None, 1_000_000.0, 1.0)}
    assert (config.attn_softcap, config.final_softcap) == (None, None)
    assert config.has_qk_norm


@pytest.mark.parametrize("family", FAMILIES)
def test_old_and_new_key_spellings_mean_the_same(family: Family) -> None:
    assert config_from_hf(tiny_config(family, "old")) == config_from_hf(tiny_config(family, "new"))


def test_rope_factor_is_for_global_layers_of_gemma_3_only() -> None:
    config = config_from_hf(tiny_config("gemma3_text", "old"))
    assert set(config.layers) == {LayerConfig(8, 10_000.0, 1.0), LayerConfig(None, 1_000_000.0, 8.0)}


@pytest.mark.parametrize("family", ["gemma", "gemma2"])
def test_flat_rope_parameters_are_read(family: Family) -> None:
    raw = tiny_config(family, rope_parameters={"rope_type": "default", "rope_theta": 5000.0})
    assert {layer.rope_theta for layer in config_from_hf(raw).layers} == {5000.0}


def test_layer_types_win_over_the_pattern() -> None:
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    raw = tiny_config("gemma2", layer_types=kinds, sliding_window_pattern=2)
    assert [layer.window for layer in config_from_hf(raw).layers] == [None, 8, 8, None]


def test_null_caps_are_off_and_absent_caps_are_the_familys_defaults() -> None:
    raw = tiny_config("gemma2", attn_logit_softcapping=None)
    del raw["final_logit_softcapping"]
    config = config_from_hf(raw)
    assert (config.attn_softcap, config.final_softcap) == (None, 30.0)
    assert config_from_hf(tiny_config("gemma3_text", final_logit_softcapping=30.0)).final_softcap == 30.0


def test_absent_keys_get_the_defaults_of_transformers() -> None:
    raw = tiny_config("gemma2")
    for key in ("query_pre_attn_scalar", "sliding_window", "rms_norm_eps", "tie_word_embeddings", "rope_theta"):
        del raw[key]
    config = config_from_hf(raw)
    assert config.score_scale == 256**-0.5
    assert [layer.window for layer in config.layers] == [4096, None, 4096, None]
    assert config.rms_norm_eps == 1e-6
    assert config.tied_head


@pytest.mark.parametrize(
    ("model_type", "shape"),
    [
        ("gemma", (256_000, 3072, 24_576, 28, 16, 16, 256, 8192)),
        ("gemma2", (256_000, 2304, 9216, 26, 8, 4, 256, 8192)),
        ("gemma3_text", (262_208, 2304, 9216, 26, 8, 4, 256, 131_072)),
    ],
)
def test_a_shape_that_a_config_leaves_out_is_that_of_its_class(model_type: str, shape: tuple[int, ...]) -> None:
    """`GemmaConfig().to_dict()` and so on of transformers 5.23."""
    found = config_from_hf({"model_type": model_type})
    assert shape == (
        found.vocab_size, found.hidden_size, found.intermediate_size, found.num_layers, found.num_heads,
        found.num_kv_heads, found.head_dim, found.context_length,
    )  # fmt: skip


def test_the_published_config_of_gemma_3_4b_has_the_values_of_its_class_where_it_has_none() -> None:
    text: dict[str, Any] = {
        "hidden_size": 2560, "intermediate_size": 10_240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    }  # fmt: skip
    config = config_from_hf({"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": text})
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 256)
    assert (config.vocab_size, config.context_length, config.eos_ids) == (262_208, 131_072, (1, 106))
    assert config.layers[5] == LayerConfig(None, 1_000_000.0, 8.0)
    assert config.layers[:5] == (LayerConfig(1024, 10_000.0),) * 5


def test_quantized_weights_of_a_multimodal_folder_are_refused_too() -> None:
    raw = {"model_type": "gemma3", "text_config": tiny_config("gemma3_text")}
    with pytest.raises(ModelFormatError, match="method 'bitsandbytes'"):
        config_from_hf(raw | {"quantization_config": {"quant_method": "bitsandbytes"}})


def test_text_part_of_the_multimodal_wrapper_is_read() -> None:
    text = tiny_config("gemma3_text")
    assert config_from_hf({"model_type": "gemma3", "text_config": text}) == config_from_hf(text)
    without_type = {key: value for key, value in text.items() if key != "model_type"}
    assert config_from_hf({"model_type": "gemma3", "text_config": without_type}) == config_from_hf(text)


@pytest.mark.parametrize("value", [None, "gelu", "gelu_pytorch_tanh"])
@pytest.mark.parametrize("key", ["hidden_act", "hidden_activation"])
def test_every_name_of_the_tanh_gelu_is_accepted(key: str, value: str | None) -> None:
    assert config_from_hf(tiny_config("gemma", **{key: value})).family == "gemma"


@pytest.mark.parametrize(
    ("hidden", "bfloat16", "float16"),
    [
        (3072, 55.5, 55.4375),
        (2048, 45.25, 45.25),
        (2304, 48, 48),
        (3584, 59.75, 59.875),
        (4608, 68.0, 67.875),
        (640, 25.25, 25.296875),
        (1152, 34.0, 33.9375),
        (2560, 50.5, 50.59375),
        (3840, 62.0, 61.96875),
        (5376, 73.5, 73.3125),
    ],
)
def test_embedding_scale_is_rounded_as_the_weights_are(hidden: int, bfloat16: float, float16: float) -> None:
    assert rounded_embed_scale(hidden, "bfloat16") == bfloat16
    assert rounded_embed_scale(hidden, "float16") == float16
    assert rounded_embed_scale(hidden, "float32") == math.sqrt(hidden)
    assert config_from_hf(tiny_config("gemma", hidden_size=hidden), "bfloat16").embed_scale == bfloat16


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("gemma", {"model_type": "llama"}, "model_type is 'llama'"),
        ("gemma", {"hidden_size": None}, "hidden_size"),
        ("gemma", {"hidden_size": 48.5}, "hidden_size is 48.5"),
        ("gemma", {"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ("gemma", {"num_attention_heads": True}, "num_attention_heads is True"),
        ("gemma", {"num_key_value_heads": 3}, "4 heads do not divide over 3"),
        ("gemma", {"head_dim": 31}, "head_dim is 31"),
        ("gemma", {"num_hidden_layers": 5000}, "5000 layers"),
        ("gemma", {"hidden_act": "silu"}, "hidden_act is 'silu'"),
        ("gemma", {"attention_bias": True}, "attention_bias"),
        ("gemma", {"quantization_config": {"bits": 4, "quant_method": "gptq"}}, "with the method 'gptq'"),
        ("gemma", {"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ("gemma", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
        ("gemma", {"rope_theta": -1.0}, "rope_theta is -1.0"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar is 0"),
        ("gemma2", {"final_logit_softcapping": 0.0}, "final_logit_softcapping is 0.0"),
        ("gemma2", {"layer_types": ["full_attention"]}, "layer_types has 1 entries for 4 layers"),
        ("gemma2", {"layer_types": ["full_attention"] * 3 + ["chunked_attention"]}, "chunked_attention"),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope type 'yarn'"),
        (
            "gemma3_text",
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": float("inf")}}},
            "factor is inf",
        ),
    ],
)
def test_config_that_cannot_be_computed_is_refused_by_name(family: Family, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFormatError) as refused:
        config_from_hf(tiny_config(family, **changes))
    assert named in str(refused.value)


# --------------------------------------------------------------------------------------------------------------- GGUF


def gguf(architecture: str = "gemma3", **changes: Any) -> dict[str, Any]:
    values = {
        "context_length": 32768,
        "embedding_length": 640,
        "block_count": 18,
        "feed_forward_length": 2048,
        "attention.head_count": 4,
        "attention.head_count_kv": 1,
        "attention.key_length": 256,
        "attention.value_length": 256,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "attention.sliding_window": 512,
        "rope.freq_base": 1e6,
    } | changes
    raw = {f"{architecture}.{key}": value for key, value in values.items() if value is not None}
    return {"general.architecture": architecture, "tokenizer.ggml.eos_token_id": 1} | raw


def test_gguf_and_hugging_face_give_the_same_config_for_the_270m() -> None:
    from_hf = config_from_hf(GEMMA3_270M | {"max_position_embeddings": 32768})
    assert config_from_gguf(gguf(), 262_144) == from_hf


def layers_of(raw: dict[str, Any]) -> list[LayerConfig]:
    return list(config_from_gguf(raw, 262_144).layers)


def test_values_missing_from_gguf_files_get_the_defaults_of_llama_cpp() -> None:
    assert set(layers_of(gguf("gemma", **{"attention.sliding_window": None, "rope.freq_base": None}))) == {
        LayerConfig(None, 10_000.0, 1.0)
    }
    gemma2 = config_from_gguf(gguf("gemma2", **{"attention.sliding_window": None, "rope.freq_base": None}), 256_000)
    assert [layer.window for layer in gemma2.layers[:3]] == [4096, None, 4096]
    assert (gemma2.attn_softcap, gemma2.final_softcap) == (50.0, 30.0)
    assert {layer.window for layer in layers_of(gguf(**{"attention.sliding_window": None}))} == {None}
    assert config_from_gguf(gguf(), 262_144).eos_ids == (1,)


@pytest.mark.parametrize(("architecture", "layers", "scalar"), [("gemma2", 46, 144), ("gemma3", 62, 168)])
def test_gguf_of_the_27b_sizes_scale_scores_by_hidden_over_heads(architecture: str, layers: int, scalar: int) -> None:
    sizes = {"block_count": layers, "embedding_length": 32 * scalar, "attention.head_count": 32}
    heads = {"attention.head_count_kv": 16, "attention.key_length": 128, "attention.value_length": 128}
    assert config_from_gguf(gguf(architecture, **sizes, **heads), 262_144).score_scale == scalar**-0.5


def test_gguf_rope_scaling_is_for_global_layers() -> None:
    raw = gguf(**{"rope.scaling.type": "linear", "rope.scaling.factor": 8.0})
    assert set(layers_of(raw)) == {LayerConfig(512, 10_000.0, 1.0), LayerConfig(None, 1e6, 8.0)}


def test_newer_gguf_files_name_theta_and_pattern() -> None:
    raw = gguf(**{"rope.freq_base_swa": 5000.0, "attention.sliding_window_pattern": 3})
    assert [layer.window for layer in layers_of(raw)[:6]] == [512, 512, None, 512, 512, None]
    assert layers_of(raw)[0].rope_theta == 5000.0
    flags = gguf(**{"attention.sliding_window_pattern": [True] * 17 + [False]})
    assert [layer.window for layer in layers_of(flags)] == [512] * 17 + [None]


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (gguf("llama"), "general.architecture is 'llama'"),
        (gguf(**{"attention.value_length": 128}), "attention.value_length"),
        (gguf(**{"rope.scaling.type": "yarn"}), "rope.scaling.type is 'yarn'"),
        (gguf(**{"attention.sliding_window_pattern": [True]}), "1 flags, 18 layers"),
        (gguf(block_count=None), "block_count"),
        (gguf(**{"rope.freq_base": 0.0}), "rope.freq_base is 0.0"),
    ],
)
def test_gguf_metadata_that_cannot_be_computed_is_refused_by_name(raw: dict[str, Any], named: str) -> None:
    with pytest.raises(ModelFormatError) as refused:
        config_from_gguf(raw, 262_144)
    assert named in str(refused.value)


def test_config_is_frozen() -> None:
    config: ModelConfig = config_from_hf(GEMMA3_270M)
    with pytest.raises(AttributeError):
        config.hidden_size = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("gemma3n", "Gemma 3n, which has embeddings in every layer"),
        ("gemma3n_text", "Gemma 3n"),
        ("gemma4", "Gemma 4"),
        ("t5gemma", "T5Gemma, which has an encoder"),
        ("paligemma", "PaliGemma"),
        ("recurrent_gemma", "RecurrentGemma"),
        ("shieldgemma2", "ShieldGemma 2"),
    ],
)
def test_another_architecture_of_the_gemma_family_is_refused_by_its_name(model_type: str, said: str) -> None:
    with pytest.raises(ModelFormatError, match=rf"model_type is '{model_type}': {said}.* such as google/gemma-3-4b-it"):
        config_from_hf({"model_type": model_type, "text_config": {}})


@pytest.mark.parametrize(("architecture", "said"), [("gemma3n", "Gemma 3n"), ("gemma-embedding", "EmbeddingGemma")])
def test_a_gguf_file_of_another_architecture_of_the_family_is_refused_by_its_name(architecture: str, said: str) -> None:
    with pytest.raises(ModelFormatError, match=rf"general.architecture is '{architecture}': {said}"):
        config_from_gguf({"general.architecture": architecture}, 256)
