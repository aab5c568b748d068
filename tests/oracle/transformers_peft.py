"""transformers and PEFT behind a few functions: NumPy in, NumPy out, float32, eager attention, evaluation mode.

Imported only where torch is (the oracle tests and the maker of golden files).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.oracle.short_gguf import write_without_vocabulary

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


def load_hf_gguf(path: Path, architecture: str) -> Any:
    """A GGUF file as transformers reads it: dequantised to float32, +1 taken off the norms.

    It reads a vocabulary of 262,144 tokens twice, for four fifths of the time that it takes, and does not use it here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        write_without_vocabulary(path, Path(folder) / "short.gguf", architecture)
        return AutoModelForCausalLM.from_pretrained(
            folder, gguf_file="short.gguf", dtype=torch.float32, attn_implementation="eager"
        ).eval()


def hf_logits(model: Any, ids: NDArray[np.int32], rows: Sequence[int] | None = None) -> F32:
    """[tokens, vocab] of one prompt, or [len(rows), vocab] of these positions."""
    import torch

    kept = 0 if rows is None else torch.tensor(rows)  # 0 means all
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(np.asarray(ids, np.int64))[None], logits_to_keep=kept).logits[0]
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
            if f".{name}." not in f"{path}.":
                continue
            spread = parameter.shape[-1] ** -0.5 if ".lora_A." in path else 0.05 if "embedding" in path else 0.3
            values = rng.standard_normal(tuple(parameter.shape), dtype=np.float32) * np.float32(spread)
            parameter.copy_(torch.from_numpy(values))
    return model.eval()


def save_random_adapter(model: Any, folder: Path, settings: Mapping[str, Any], seed: int, **saving: Any) -> None:
    """Have PEFT put an adapter around the model and save it, every value of it random and large enough to be felt.

    Raises whatever PEFT raises for settings that it does not take.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)  # DoRA's magnitudes begin as lengths of what PEFT draws
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings))
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for path, parameter in sorted(wrapped.named_parameters()):
            if parameter.requires_grad:
                parameter.copy_(torch.from_numpy(_random_values(path, parameter, rng)))
    wrapped.create_or_update_model_card = _no_model_card
    wrapped.save_pretrained(folder, **saving)


def _no_model_card(folder: str) -> None:
    """A README.md, from a template that takes longer to compile than the adapter takes to save."""


def _random_values(path: str, parameter: Any, rng: np.random.Generator) -> F32:
    values = rng.standard_normal(tuple(parameter.shape), dtype=np.float32)
    if "lora_magnitude_vector" in path:  # PEFT has put the lengths of the base's rows there
        scaled: F32 = parameter.detach().numpy() * np.exp(values * np.float32(0.3))
        return scaled
    if "modules_to_save" in path or "trainable_tokens" in path:
        return values * np.float32(0.3)
    if "lora_A" in path:
        return values * np.float32(parameter.shape[-1] ** -0.5)
    return values * np.float32(0.05 if "lora_embedding" in path else 0.3)


def peft_logits(model: Any, adapter: Path, ids: NDArray[np.int32]) -> F32:
    """[tokens, vocab] of one prompt with one adapter, as PEFT reads it from its folder. PEFT changes the model."""
    from peft import PeftModel

    return hf_logits(PeftModel.from_pretrained(model, adapter).eval(), ids)


def peft_mixed_logits(model: Any, ids: NDArray[np.int32], names: Sequence[str]) -> F32:
    """[prompts, tokens, vocab]: one forward of PEFT's mixed batch; "__base__" names a row without adapter."""
    import torch

    with torch.no_grad():
        out = model(input_ids=torch.from_numpy(np.asarray(ids, np.int64)), adapter_names=list(names))
    return np.ascontiguousarray(out.logits.float().numpy())
