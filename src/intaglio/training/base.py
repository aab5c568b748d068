"""The served checkpoint as a torch model, frozen, and fresh LoRA matrices on it.

Config and tensors are read by the server's own code, from a Hugging Face folder or a GGUF file, so training uses the
same base that is served. Only the model class is from transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from intaglio.errors import ModelFormatError
from intaglio.model.config import LayerConfig, ModelConfig
from intaglio.model.loader import read_config
from intaglio.model.weights import Checkpoint, open_checkpoint
from intaglio.training.dtypes import BaseDtype
from intaglio.training.options import TrainingOptions

if TYPE_CHECKING:
    import torch

_MODEL_TYPES = {"gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3_text"}  # our family -> transformers' model_type


def load_base(path: Path, dtype: BaseDtype) -> torch.nn.Module:
    """The model in `dtype`, every parameter frozen. Raises ModelFormatError naming the key or tensor."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with open_checkpoint(path) as checkpoint:
        config = read_config(checkpoint)
        hf_config = AutoConfig.for_model(_MODEL_TYPES[config.family], **hugging_face_config(config))
        with torch.device("meta"):
            # transformers' fused attention has no soft cap.
            attention = "eager" if config.attn_softcap is not None else "sdpa"
            model = AutoModelForCausalLM.from_config(hf_config, attn_implementation=attention)
        _load_weights(model, checkpoint, config, getattr(torch, dtype))
    return model.eval().requires_grad_(False)


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """A config.json equivalent to `config`. Raises ModelFormatError if there is no equivalent."""
    keys: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context_length,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tied_head,
    }
    full = next((layer for layer in config.layers if layer.window is None), config.layers[0])
    local = next((layer for layer in config.layers if layer.window is not None), full)
    if config.family == "gemma":
        return keys | {"rope_parameters": _rope_parameters(full)}
    keys |= {
        "query_pre_attn_scalar": round(config.score_scale**-2),
        "sliding_window": local.window,
        "layer_types": ["full_attention" if layer.window is None else "sliding_attention" for layer in config.layers],
        "final_logit_softcapping": config.final_softcap,
        "attn_logit_softcapping": config.attn_softcap,
    }
    if abs(keys["query_pre_attn_scalar"] - config.score_scale**-2) > 1e-6 * config.score_scale**-2:
        raise ModelFormatError(
            f"query_pre_attn_scalar is {config.score_scale**-2}; transformers trains with whole numbers only"
        )
    if config.family == "gemma2":
        return keys | {"rope_parameters": _rope_parameters(full)}
    return keys | {
        "rope_parameters": {"full_attention": _rope_parameters(full), "sliding_attention": _rope_parameters(local)}
    }


def _rope_parameters(layer: LayerConfig) -> dict[str, Any]:
    if layer.rope_factor == 1:
        return {"rope_type": "default", "rope_theta": layer.rope_theta}
    return {"rope_type": "linear", "factor": layer.rope_factor, "rope_theta": layer.rope_theta}


def _load_weights(model: Any, checkpoint: Checkpoint, config: ModelConfig, dtype: torch.dtype) -> None:
    """Give a model without storage its weights, one tensor at a time, and compute its buffers."""
    import torch

    tensors = {}
    for name in config.tensor_shapes():
        values = checkpoint.tensor(name)
        if name.endswith("norm.weight") and checkpoint.norm_includes_one:
            values -= 1
        tensors[name] = torch.from_numpy(values).to(dtype)
    if config.tied_head:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model.load_state_dict(tensors, assign=True)
    model.tie_weights()
    _make_buffers(model, config)


def _make_buffers(model: Any, config: ModelConfig) -> None:
    """Compute the rotary frequencies and the embedding's factor, which are not in a checkpoint."""
    import torch

    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(model.config)
    inner.embed_tokens.embed_scale = torch.tensor(config.embed_scale)
    empty = [name for name, buffer in model.named_buffers() if buffer.device.type == "meta"]
    assert not empty, f"buffers without values: {empty}"


def add_adapter(base: Any, options: TrainingOptions) -> Any:
    """The base as a PeftModel whose new float32 matrices require a gradient. B is zero, so the output is unchanged."""
    import warnings

    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=options.rank,
        lora_alpha=2 * options.rank if options.alpha is None else options.alpha,
        target_modules=list(options.targets),
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        use_dora=options.dora,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a deprecated name of transformers
        return get_peft_model(base, config)
