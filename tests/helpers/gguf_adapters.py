"""Adapters as llama.cpp's convert_lora_to_gguf.py writes them, with the `gguf` package that it writes with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from intaglio.model.config import ModelConfig
from tests.helpers.adapters import adapter_tensors

_MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_tensors(config: ModelConfig, **options: Any) -> dict[str, NDArray[Any]]:
    """The numbers of `adapter_tensors`, which takes the options, under llama.cpp's names."""
    found = {}
    for name, values in adapter_tensors(config, **options).items():
        layer, _, path = name.removesuffix(".weight").partition("layers.")[2].partition(".")
        module, _, half = path.rpartition(".")
        found[f"blk.{layer}.{_MODULES[module]}.weight.{half.lower()}"] = values
    return found


def write_gguf_adapter(
    path: Path,
    config: ModelConfig,
    *,
    alpha: float | None = 8.0,
    metadata: Mapping[str, str] | None = None,
    tensors: Mapping[str, NDArray[Any]] | None = None,
    quantized: bool = False,
    **options: Any,
) -> Path:
    """Write the adapter; return its path.

    alpha      adapter.lora.alpha; None: without that key
    metadata   string values in place of the usual ones, by key; an empty one leaves the key out
    tensors    in place of `gguf_tensors`, which takes the options
    quantized  Q8_0 where a row is whole blocks of 32
    """
    texts = {"general.type": "adapter", "adapter.type": "lora"} | dict(metadata or {})
    writer = gguf.GGUFWriter(path, texts.pop("general.architecture", config.family))
    for key, value in texts.items():
        if value:
            writer.add_string(key, value)
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for name, values in (tensors if tensors is not None else gguf_tensors(config, **options)).items():
        if quantized and values.shape[-1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values.astype(np.float32), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
