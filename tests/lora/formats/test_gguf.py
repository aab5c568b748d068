"""llama.cpp's GGUF adapters are the same adapters as PEFT's of the same numbers, or refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.formats.gguf import GgufAdapter, gguf_to_peft
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE, AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig, config_from_hf
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import FAMILIES, Family, tiny_config
from tests.helpers.gguf_adapters import gguf_tensors, write_gguf_adapter

LIMITS = AdapterLimits()


def read(path: Path, base: ModelConfig) -> LoraAdapter:
    return read_peft_adapter(path, base, LIMITS)


def as_peft(path: Path, base: ModelConfig, folder: Path) -> LoraAdapter:
    """Read from the two files that an upload is stored as."""
    folder.mkdir()
    with (
        GgufAdapter(path, LIMITS.max_file_bytes) as adapter,
        (folder / CONFIG_FILE).open("wb") as config,
        (folder / WEIGHTS_FILE).open("wb") as weights,
    ):
        gguf_to_peft(adapter, base.family, config.write, weights.write)
    return read(folder, base)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_is_the_adapter_that_was_converted(tmp_path: Path, family: Family, dtype: str) -> None:
    """The digest covers every number that is computed with: A and B the right way round, and the scaling."""
    base = config_from_hf(tiny_config(family))
    peft = read(write_peft_adapter(tmp_path / "peft", base, rank=4, alpha=6, dtype=dtype), base)
    path = write_gguf_adapter(tmp_path / "lora.gguf", base, alpha=6.0, rank=4, dtype=dtype)
    assert read(path, base).digest == peft.digest
    assert as_peft(path, base, tmp_path / "made").digest == peft.digest


def test_each_module_is_scaled_by_its_own_rank(tmp_path: Path, base: ModelConfig) -> None:
    ranks = {"q_proj": 8, r"layers\.1\.mlp\.up_proj": 2}
    peft = write_peft_adapter(tmp_path / "peft", base, rank=4, alpha=6, rank_pattern=ranks)
    path = write_gguf_adapter(tmp_path / "lora.gguf", base, alpha=6.0, rank=4, rank_pattern=ranks)
    assert read(path, base).digest == read(peft, base).digest == as_peft(path, base, tmp_path / "made").digest


@pytest.mark.parametrize("alpha", [0.0, None])
def test_without_alpha_the_scaling_is_one_as_in_llama_cpp(
    tmp_path: Path, base: ModelConfig, alpha: float | None
) -> None:
    ranks = {"q_proj": 8}
    peft = write_peft_adapter(tmp_path / "peft", base, rank=4, alpha=4, rank_pattern=ranks, alpha_pattern=ranks)
    path = write_gguf_adapter(tmp_path / "lora.gguf", base, alpha=alpha, rank=4, rank_pattern=ranks)
    assert read(path, base).digest == read(peft, base).digest == as_peft(path, base, tmp_path / "made").digest


def test_quantized_matrices_are_read(tmp_path: Path, base: ModelConfig) -> None:
    exact = read(write_gguf_adapter(tmp_path / "exact.gguf", base, rank=32), base)
    path = write_gguf_adapter(tmp_path / "lora.gguf", base, rank=32, quantized=True)
    found = read(path, base)
    assert found.digest != exact.digest
    for key, pair in found.pairs.items():
        np.testing.assert_allclose(pair.b, exact.pairs[key].b, atol=np.abs(exact.pairs[key].b).max() / 100)
    assert as_peft(path, base, tmp_path / "made").digest == found.digest


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"metadata": {"general.type": "model"}},
            "general.type is 'model', not 'adapter': a whole model is served with",
        ),
        ({"metadata": {"general.type": ""}}, "general.type is 'model'"),
        ({"metadata": {"adapter.type": "loha"}}, "adapter.type is 'loha'; lora is served"),
        ({"metadata": {"general.architecture": "llama"}}, "general.architecture is 'llama'; gemma, gemma2, gemma3"),
        ({"metadata": {"general.architecture": "gemma3"}}, "is 'gemma3'; the base model here is a gemma"),
        ({"alpha": float("nan")}, "adapter.lora.alpha is nan"),
    ],
)
def test_another_gguf_file_is_refused_by_key(
    tmp_path: Path, base: ModelConfig, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(AdapterError, match=rf"^lora\.gguf: {complaint}|^lora\.gguf: general.architecture {complaint}"):
        read(write_gguf_adapter(tmp_path / "lora.gguf", base, **options), base)


NORM = np.ones(4, np.float32)
Q0 = "blk.0.attn_q.weight.lora"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({f"{Q0}_b": None}, f"tensor '{Q0}_a' has no lora_B beside it"),
        ({"blk.0.attn_norm.weight": NORM}, "tensor 'blk.0.attn_norm.weight' is a norm, which llama.cpp does not use"),
        ({"token_embd.weight.lora_a": NORM}, "is a LoRA on the embedding"),
        ({"output.weight.lora_a": NORM}, "is a LoRA on the head"),
        ({"blk.0.ffn_gate_exps.weight.lora_a": NORM}, "is not a LoRA weight of a Gemma layer"),
        ({f"{Q0}_a": np.ones((4, 7), np.float32)}, rf"tensor '{Q0}_a' has shape \[4, 7\]; the base model needs"),
        ({f"{Q0}_a": np.ones((5, 48), np.float32)}, f"tensor '{Q0}_a' has shape .* with one rank"),
        (
            {f"{Q0}_b": np.full((128, 4), np.inf, np.float32)},
            f"tensor '{Q0}_b' holds a NaN or an infinity; the training diverged",
        ),
    ],
)
def test_a_tensor_that_is_not_used_is_refused_by_its_own_name(
    tmp_path: Path, base: ModelConfig, changes: dict[str, Any], complaint: str
) -> None:
    tensors = {name: values for name, values in (gguf_tensors(base) | changes).items() if values is not None}
    with pytest.raises(AdapterError, match=rf"^lora\.gguf: .*{complaint}"):
        read(write_gguf_adapter(tmp_path / "lora.gguf", base, tensors=tensors), base)


def test_limits_hold_and_a_cut_file_is_refused(tmp_path: Path, base: ModelConfig) -> None:
    path = write_gguf_adapter(tmp_path / "lora.gguf", base, rank=4)
    with pytest.raises(AdapterError, match=r"^lora\.gguf: has \d+ bytes; the limit is 1000"):
        read_peft_adapter(path, base, AdapterLimits(max_file_bytes=1000))
    with pytest.raises(AdapterError, match=r"^lora\.gguf: .*rank 4; this server's limit is 2"):
        read_peft_adapter(path, base, AdapterLimits(max_rank=2))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(AdapterError, match=r"^lora\.gguf: "):
        read(path, base)
