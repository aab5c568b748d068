"""transformers and PEFT behind a few functions: NumPy in, NumPy out, float32, eager attention, evaluation mode.

Imported only where torch is (the oracle tests and the maker of golden files).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Read when transformers is first imported: no network in any test, no progress bars in its output.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

F32 = NDArray[np.float32]


def load_hf(folder: Path, dtype: str = "float32") -> Any:
    """A checkpoint folder as transformers reads it."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="eager")
    return model.eval()


def load_hf_gguf(folder: Path, file: str) -> Any:
    """A GGUF file as transformers reads it: dequantised to float32, +1 taken off the norms."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=file, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def hf_logits(model: Any, ids: NDArray[np.int32]) -> F32:
    """[tokens, vocab] of one prompt."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(np.asarray(ids, np.int64))[None]).logits[0]
    return np.ascontiguousarray(logits.float().numpy())


def add_peft_adapter(model: Any, name: str, settings: Mapping[str, Any], seed: int) -> Any:
    """The model with one more LoRA adapter, all of whose values are random and large enough to be felt."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    if isinstance(model, PeftModel):
        model.add_adapter(name, config)
    else:
        model = get_peft_model(model, config, adapter_name=name)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for path, parameter in sorted(model.named_parameters()):
            if f".{name}." not in path:
                continue
            spread = parameter.shape[-1] ** -0.5 if ".lora_A." in path else 0.3
            values = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) * np.float32(spread)
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def peft_mixed_logits(model: Any, ids: NDArray[np.int32], names: Sequence[str]) -> F32:
    """[prompts, tokens, vocab]: one forward of PEFT's mixed batch; "__base__" names a row without adapter."""
    import torch

    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(np.asarray(ids, np.int64)), adapter_names=list(names))
    return np.ascontiguousarray(out.logits.float().numpy())
