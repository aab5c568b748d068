"""The shape and arithmetic of a Gemma checkpoint: one frozen record for three family versions.

Read from a Hugging Face `config.json` (old and new key spellings) or from GGUF metadata. Missing values get the
defaults of llama.cpp and transformers, each with a comment. An unknown key that changes the arithmetic is
refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from intaglio.errors import ModelFormatError
from intaglio.model.relatives import refusal

Family = Literal["gemma", "gemma2", "gemma3"]

_TANH_GELU = {None, "gelu", "gelu_pytorch_tanh"}  # "gelu" in a Gemma config has always meant the tanh form


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """Settings that may differ from layer to layer.

    window       tokens a query sees, its own included; None: all before it
    rope_theta   base of the rotary angles
    rope_factor  positions are divided by this (linear scaling); 1 means no scaling
    """

    window: int | None
    rope_theta: float
    rope_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape and arithmetic of one Gemma 1, 2 or 3 text model.

    embed_scale is the factor on embedding rows: sqrt(hidden_size), rounded to bfloat16 or float16 for checkpoints of
    that type (what transformers computes), exact for float32 and GGUF (what llama.cpp computes).
    """

    family: Family
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    rms_norm_eps: float
    score_scale: float
    embed_scale: float
    layers: tuple[LayerConfig, ...]
    attn_softcap: float | None = None
    final_softcap: float | None = None
    tied_head: bool = True
    eos_ids: tuple[int, ...] = (1,)

    @property
    def has_post_norms(self) -> bool:
        """Gemma 2 and 3 norm the output of attention and MLP before it is added to the residual."""
        return self.family != "gemma"

    @property
    def has_qk_norm(self) -> bool:
        """Gemma 3 norms each head of q and k before the rotary embedding."""
        return self.family == "gemma3"

    @property
    def q_size(self) -> int:
        """Width of q and of the attention output. Not hidden_size: 4096 against 3072 for Gemma 7B."""
        return self.num_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.num_kv_heads * self.head_dim

    def linear_layer_shapes(self) -> dict[str, tuple[int, int]]:
        """[out, in] of the seven linear layers of every block, by their Hugging Face path within the layer."""
        return {
            "self_attn.q_proj": (self.q_size, self.hidden_size),
            "self_attn.k_proj": (self.kv_size, self.hidden_size),
            "self_attn.v_proj": (self.kv_size, self.hidden_size),
            "self_attn.o_proj": (self.hidden_size, self.q_size),
            "mlp.gate_proj": (self.intermediate_size, self.hidden_size),
            "mlp.up_proj": (self.intermediate_size, self.hidden_size),
            "mlp.down_proj": (self.hidden_size, self.intermediate_size),
        }

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint, by Hugging Face name, with its shape."""
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocab_size, self.hidden_size)}
        norms = ["input_layernorm", "post_attention_layernorm"]
        if self.has_post_norms:
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for index in range(self.num_layers):
            prefix = f"model.layers.{index}."
            shapes |= {f"{prefix}{norm}.weight": (self.hidden_size,) for norm in norms}
            if self.has_qk_norm:
                shapes |= {f"{prefix}self_attn.{qk}_norm.weight": (self.head_dim,) for qk in "qk"}
            shapes |= {f"{prefix}{name}.weight": shape for name, shape in self.linear_layer_shapes().items()}
        shapes["model.norm.weight"] = (self.hidden_size,)
        if not self.tied_head:
            shapes["lm_head.weight"] = (self.vocab_size, self.hidden_size)
        return shapes


# ---------------------------------------------------------------------------------------------- Hugging Face
# config.json

# Keys that a multimodal config has beside its `text_config`, and that hold for the text part.
_OF_THE_WRAPPER = ("tie_word_embeddings", "eos_token_id", "quantization_config")
_MODEL_TYPES: dict[str, Family] = {"gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3"}

# What a config.json leaves out has the default of its class in transformers. Google's own files rely on it: the text
# part of Gemma 3 4B has no heads, no vocabulary and no context length.
_CLASS_DEFAULTS: dict[Family, dict[str, int]] = {
    "gemma": {
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 8192,
    },
    "gemma2": {
        "vocab_size": 256_000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
    },
    "gemma3": {
        "vocab_size": 262_208,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131_072,
    },
}


def config_from_hf(raw: Mapping[str, Any], weight_dtype: str = "float32") -> ModelConfig:
    """Read a Hugging Face config.

    weight_dtype  "float32", "bfloat16" or "float16": the type of the checkpoint's embedding, which rounds embed_scale
    Raises ModelFormatError naming the key.
    """
    raw = text_part(raw)
    model_type = str(raw.get("model_type"))
    if model_type not in _MODEL_TYPES:
        raise ModelFormatError(refusal("config.json: model_type", model_type))
    family = _MODEL_TYPES[model_type]
    _refuse_unknown_arithmetic(raw)
    defaults = _CLASS_DEFAULTS[family]
    raw = {**defaults, **raw}
    hidden, heads = _integer(raw, "hidden_size"), _integer(raw, "num_attention_heads")
    head_dim = _integer(raw, "head_dim", 256)
    scalar = _number(raw, "query_pre_attn_scalar", 256.0) if family != "gemma" else float(head_dim)
    num_layers = _integer(raw, "num_hidden_layers")
    return _checked(
        ModelConfig(
            family=family,
            vocab_size=_integer(raw, "vocab_size"),
            hidden_size=hidden,
            intermediate_size=_integer(raw, "intermediate_size"),
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=_integer(raw, "num_key_value_heads", heads),
            head_dim=head_dim,
            context_length=_integer(raw, "max_position_embeddings", defaults["max_position_embeddings"]),
            rms_norm_eps=_number(raw, "rms_norm_eps", 1e-6),
            score_scale=1.0 / math.sqrt(scalar),
            embed_scale=rounded_embed_scale(hidden, weight_dtype),
            layers=_hf_layers(raw, family, num_layers),
            attn_softcap=_softcap(raw, "attn_logit_softcapping", family),
            final_softcap=_softcap(raw, "final_logit_softcapping", family),
            tied_head=bool(raw.get("tie_word_embeddings", True)),
            eos_ids=_ids(raw.get("eos_token_id", 1)),
        )
    )


def is_multimodal(raw: Mapping[str, Any]) -> bool:
    """Whether a config is of a model that has a text model in it: of Hugging Face, or metadata of Ollama's GGUF."""
    return raw.get("model_type") == "gemma3" or any(key.startswith("gemma3.vision.") for key in raw)


def text_part(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text model. Raises ModelFormatError if a multimodal one has none."""
    if raw.get("model_type") != "gemma3":
        return raw
    text_config = raw.get("text_config")
    if not isinstance(text_config, dict):
        raise ModelFormatError("text_config of a multimodal gemma3 is not an object")
    outer = {key: raw[key] for key in _OF_THE_WRAPPER if key in raw}
    return {"model_type": "gemma3_text", **outer, **text_config}  # older wrappers leave the inner type out


def _refuse_unknown_arithmetic(raw: Mapping[str, Any]) -> None:
    if raw.get("use_bidirectional_attention"):
        raise ModelFormatError("config.json: use_bidirectional_attention is set; embedding models are not supported")
    if raw.get("attention_bias"):
        raise ModelFormatError("config.json: attention_bias is true; attention biases are not supported")
    for key in ("hidden_activation", "hidden_act"):
        if raw.get(key) not in _TANH_GELU:
            raise ModelFormatError(f"config.json: {key} is {raw[key]!r}; Gemma's is the tanh form of GELU")
    if raw.get("model_type") == "gemma3_text" and raw.get("attn_logit_softcapping") is not None:
        raise ModelFormatError(
            "config.json: attn_logit_softcapping is set; no Gemma 3 has one and transformers ignores it"
        )
    quantization = raw.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else quantization
        raise ModelFormatError(
            f"config.json: quantization_config is set, with the method {method!r}; take the model's unquantized folder "
            "(--format w8, w5 or w4 quantizes it at the start) or a GGUF file"
        )


def _hf_layers(raw: Mapping[str, Any], family: Family, num_layers: int) -> tuple[LayerConfig, ...]:
    sliding = _hf_sliding_layers(raw, family, num_layers)
    window = _integer(raw, "sliding_window", 4096) if any(sliding) else None
    full_theta, full_factor = _hf_rope(raw, "full_attention", _number(raw, "rope_theta", _full_theta(family)))
    local_default = _number(raw, "rope_local_base_freq", 10_000.0) if family == "gemma3" else full_theta
    local_theta, local_factor = _hf_rope(raw, "sliding_attention", local_default)
    if family != "gemma3":  # one rope for all layers
        local_theta, local_factor = full_theta, full_factor
    return tuple(
        LayerConfig(window, local_theta, local_factor) if is_sliding else LayerConfig(None, full_theta, full_factor)
        for is_sliding in sliding
    )


def _hf_sliding_layers(raw: Mapping[str, Any], family: Family, num_layers: int) -> list[bool]:
    if family == "gemma":
        return [False] * num_layers
    types = raw.get("layer_types")
    if types is not None:
        unknown = sorted({str(t) for t in types} - {"sliding_attention", "full_attention"})
        if unknown or len(types) != num_layers:
            raise ModelFormatError(
                f"config.json: layer_types has {len(types)} entries for {num_layers} layers"
                + (f" and unknown kinds {unknown}" if unknown else "")
            )
        return [t == "sliding_attention" for t in types]
    if raw.get("sliding_window", 1) is None:
        return [False] * num_layers
    period = _integer(raw, "sliding_window_pattern", _period(family))
    return [(i + 1) % period != 0 for i in range(num_layers)]


def _hf_rope(raw: Mapping[str, Any], kind: str, theta: float) -> tuple[float, float]:
    """(theta, linear factor) of one kind of layer, from the new `rope_parameters` or the old `rope_scaling`."""
    parameters = raw.get("rope_parameters")
    if parameters is None:
        parameters = (raw.get("rope_scaling") or {}) if kind == "full_attention" else {}
    elif kind in parameters or "full_attention" in parameters:
        parameters = parameters.get(kind) or {}
    rope_type = parameters.get("rope_type", parameters.get("type", "default"))
    if rope_type not in ("default", "linear"):
        raise ModelFormatError(f"config.json: rope type {rope_type!r} of {kind}; Gemma has 'default' and 'linear'")
    factor = _number(parameters, "factor", 1.0) if rope_type == "linear" else 1.0
    return _number(parameters, "rope_theta", theta), factor


def _softcap(raw: Mapping[str, Any], key: str, family: Family) -> float | None:
    if family == "gemma":
        return None
    defaults = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0} if family == "gemma2" else {}
    value = raw.get(key, defaults.get(key))  # null is off, absent the family's default
    return None if value is None else _number(raw, key, value)


# ------------------------------------------------------------------------------------------------------- GGUF metadata


_OLLAMA_ROPE = {"rope.global.freq_base": "rope.freq_base", "rope.local.freq_base": "rope.freq_base_swa"}
_LAYERS_OF_1B = 26
_STRETCHED_CONTEXT = 131_072  # tokens; of the 4B, 12B and 27B


def config_from_gguf(raw: Mapping[str, Any], vocab_size: int, tied_head: bool = True) -> ModelConfig:
    """Read GGUF metadata (`general.architecture`, `<architecture>.*`).

    vocab_size  rows of the embedding
    Raises ModelFormatError naming the key.
    """
    family = raw.get("general.architecture")
    if family not in ("gemma", "gemma2", "gemma3"):
        raise ModelFormatError(refusal("general.architecture", family))
    values = {key.removeprefix(f"{family}."): value for key, value in raw.items() if key.startswith(f"{family}.")}
    if family == "gemma3" and _is_of_ollama(values):
        values = _with_llama_cpp_keys(values)
    hidden, heads = _integer(values, "embedding_length"), _integer(values, "attention.head_count")
    head_dim = _integer(values, "attention.key_length", hidden // heads)
    if _integer(values, "attention.value_length", head_dim) != head_dim:
        raise ModelFormatError(
            f"{family}.attention.value_length differs from key_length {head_dim}; in a Gemma they are equal"
        )
    num_layers = _integer(values, "block_count")
    return _checked(
        ModelConfig(
            family=family,
            vocab_size=vocab_size,
            hidden_size=hidden,
            intermediate_size=_integer(values, "feed_forward_length"),
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=_integer(values, "attention.head_count_kv", heads),
            head_dim=head_dim,
            context_length=_integer(values, "context_length"),
            rms_norm_eps=_number(values, "attention.layer_norm_rms_epsilon", 1e-6),
            score_scale=_gguf_score_scale(family, num_layers, hidden, heads, head_dim),
            embed_scale=math.sqrt(hidden),
            layers=_gguf_layers(values, family, num_layers),
            attn_softcap=_number(values, "attn_logit_softcapping", 50.0) if family == "gemma2" else None,
            final_softcap=_gguf_final_softcap(values, family),
            tied_head=tied_head,
            eos_ids=_ids(raw.get("tokenizer.ggml.eos_token_id", 1)),
        )
    )


def _is_of_ollama(values: Mapping[str, Any]) -> bool:
    """Whether Ollama's converter wrote a Gemma 3: it has other keys for RoPE, no epsilon, or the vision part's keys."""
    return "attention.layer_norm_rms_epsilon" not in values or any(
        key in _OLLAMA_ROPE or key.startswith(("mm.", "vision.")) for key in values
    )


def _with_llama_cpp_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """A Gemma 3 of Ollama's converter, with the keys that llama.cpp's would have written.

    What Ollama's program has as constants is not in the file. The sizes with 131,072 tokens of context have their
    global RoPE stretched by 8; the cap of 30 that some files of the 1B have is not Gemma 3's. Source: the readers of
    such files in Ollama and in its patch of llama.cpp.
    """
    found: dict[str, Any] = {"attention.key_length": 256, "attention.value_length": 256, "rope.freq_base": 1e6}
    if values.get("context_length", 0) >= _STRETCHED_CONTEXT:
        found |= {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
    found |= {_OLLAMA_ROPE.get(key, key): value for key, value in values.items()}
    if values.get("block_count") == _LAYERS_OF_1B:
        found.pop("final_logit_softcapping", None)
    return found


def _gguf_score_scale(family: str, num_layers: int, hidden: int, heads: int, head_dim: int) -> float:
    """The files do not carry query_pre_attn_scalar: it is head_dim except in the two 27B models (144 and 168)."""
    is_27b = (family == "gemma2" and num_layers == 46) or (family == "gemma3" and num_layers == 62)
    return 1.0 / math.sqrt(hidden // heads if is_27b else head_dim)


def _gguf_final_softcap(values: Mapping[str, Any], family: str) -> float | None:
    if family == "gemma2":
        return _number(values, "final_logit_softcapping", 30.0)
    cap = values.get("final_logit_softcapping") if family == "gemma3" else None
    return None if not cap else float(cap)


def _gguf_layers(values: Mapping[str, Any], family: Family, num_layers: int) -> tuple[LayerConfig, ...]:
    theta = _number(values, "rope.freq_base", 10_000.0)
    scaling = values.get("rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        raise ModelFormatError(f"{family}.rope.scaling.type is {scaling!r}; Gemma has 'none' and 'linear'")
    factor = _number(values, "rope.scaling.factor", 1.0) if scaling == "linear" else 1.0
    # Neither the local theta nor the period need be in a file: 10000, and every 6th (Gemma 3) or 2nd layer global.
    window = values.get("attention.sliding_window", 4096 if family == "gemma2" else None)
    if family == "gemma" or not window:
        return (LayerConfig(None, theta, factor),) * num_layers
    local_theta = _number(values, "rope.freq_base_swa", 10_000.0 if family == "gemma3" else theta)
    period = values.get("attention.sliding_window_pattern", _period(family))
    is_sliding = (
        [bool(flag) for flag in period]  # newer files: one flag per layer
        if isinstance(period, (list, tuple))
        else [(i + 1) % int(period) != 0 for i in range(num_layers)]
    )
    if len(is_sliding) != num_layers:
        raise ModelFormatError(
            f"{family}.attention.sliding_window_pattern: {len(is_sliding)} flags, {num_layers} layers"
        )
    local = LayerConfig(int(window), local_theta, 1.0 if family == "gemma3" else factor)
    return tuple(local if sliding else LayerConfig(None, theta, factor) for sliding in is_sliding)


# -------------------------------------------------------------------------------------------------------------- shared


def rounded_embed_scale(hidden_size: int, weight_dtype: str) -> float:
    """sqrt(hidden_size) as a number of the weights' type, because the factor is a tensor of that type in
    transformers.
    """
    exact = math.sqrt(hidden_size)
    mantissa_bits = {"float32": None, "float16": 10, "bfloat16": 7}[weight_dtype]
    if mantissa_bits is None:
        return exact
    mantissa, exponent = math.frexp(exact)  # exact = mantissa * 2**exponent, 0.5 <= mantissa < 1
    steps = 2 ** (mantissa_bits + 1)
    return math.ldexp(round(mantissa * steps) / steps, exponent)


def _full_theta(family: Family) -> float:
    return 1_000_000.0 if family == "gemma3" else 10_000.0


def _period(family: Family) -> int:
    return {"gemma": 1, "gemma2": 2, "gemma3": 6}[family]


def _ids(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (() if value is None else (int(value),))


def _integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ModelFormatError(f"{key} is {value!r}; a positive whole number is needed")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float) -> float:
    value = raw.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise ModelFormatError(f"{key} is {value!r}; a positive number is needed")
    return float(value)


def _checked(config: ModelConfig) -> ModelConfig:
    if config.num_heads % config.num_kv_heads:
        raise ModelFormatError(f"{config.num_heads} heads do not divide over {config.num_kv_heads} key-value heads")
    if config.head_dim % 2:
        raise ModelFormatError(f"head_dim is {config.head_dim}; the rotary embedding needs an even number")
    if config.num_layers > 1024 or config.vocab_size > 2**22:
        raise ModelFormatError(f"{config.num_layers} layers and {config.vocab_size} tokens: no Gemma is that large")
    return config
