"""The models and adapters of the benchmarks: their paths, and functions that make them if they are missing.

270m  the bundled Gemma 3 270M, Q4_K_M
2b    the shape of Gemma 1 2B in Q4_0 with random weights, since speed does not depend on their values
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tests.helpers.adapters import write_peft_adapter

from benchmarks.workloads import NUM_ADAPTERS, PROJECTIONS, RANK, Model
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.bundled import bundled_model_path
from intaglio.model.config import ModelConfig
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.request import AdapterRef
from intaglio.settings import load_settings

HIDDEN, INNER, LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 2048, 16384, 18, 8, 1, 256, 256_000
CONTEXT = 8192


@dataclass(frozen=True, slots=True)
class Home:
    """The benchmarks' folder: peers, models, adapters, logs. All of it can be made again."""

    path: Path

    def model(self, model: Model) -> Path:
        """The .gguf file of a model; it is written if missing."""
        if model == "270m":
            return bundled_model_path(load_settings().cache_path)
        return _written_once(self.path / "models" / "gemma-2b-shape-q4_0.gguf", _write_2b)

    def config(self, model: Model) -> ModelConfig:
        with open_checkpoint(self.model(model)) as checkpoint:
            return read_config(checkpoint)

    def adapters(self, model: Model) -> list[Path]:
        """PEFT folders of NUM_ADAPTERS adapters of rank 8 on all seven projections, in float16."""
        folder = self.path / "adapters" / model
        return [
            _written_once(folder / f"adapter-{i}", lambda path, i=i: self._write_adapter(path, model, i))
            for i in range(NUM_ADAPTERS)
        ]

    def many_adapters(self, count: int) -> list[Path]:
        """PEFT folders of `count` adapters: the matrices of one, rotated by another number of columns in each."""
        first = load_file(self.adapters("270m")[0] / "adapter_model.safetensors")
        config = (self.adapters("270m")[0] / "adapter_config.json").read_text()

        def write(path: Path, shift: int) -> None:
            path.mkdir(parents=True)
            moved = {name: np.roll(values, shift + 1, axis=1) for name, values in first.items()}
            save_file(moved, path / "adapter_model.safetensors", metadata={"format": "pt"})
            (path / "adapter_config.json").write_text(config)

        folder = self.path / "adapters" / "270m-many"
        return [_written_once(folder / f"adapter-{i}", lambda path, i=i: write(path, i)) for i in range(count)]

    def lora_gguf(self, model: Model) -> list[Path]:
        """The adapters as GGUF files, as llama.cpp's convert_lora_to_gguf.py writes them, but without torch."""
        return [
            _written_once(
                folder.with_suffix(".gguf"), lambda path, folder=folder: _write_lora_gguf(path, folder, model)
            )
            for folder in self.adapters(model)
        ]

    def _write_adapter(self, path: Path, model: Model, seed: int) -> None:
        write_peft_adapter(
            path, self.config(model), rank=RANK, alpha=2 * RANK, targets=PROJECTIONS, seed=seed, dtype="float16"
        )


def references(folders: list[Path], config: ModelConfig) -> list[AdapterRef]:
    """References to adapters, for requests to the engine."""
    return [AdapterRef(read_peft_adapter(folder, config, AdapterLimits()).digest, str(folder)) for folder in folders]


def _written_once(path: Path, write: Callable[[Path], None]) -> Path:
    """The path, after writing it if it is missing (under another name, then renamed)."""
    if not path.exists():
        aside = path.with_name(f"{path.name}.partial")
        if aside.is_dir():
            shutil.rmtree(aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(aside)
        aside.replace(path)
    return path


# -- the 2B shape ------------------------------------------------------------------------------------------------------


def _write_2b(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "gemma")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    _add_vocabulary(writer)
    random = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", _q4_0(random, VOCABULARY, HIDDEN), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(LAYERS):
        for name, (outputs, inputs) in _matrices().items():
            blocks = _q4_0(random, outputs, inputs)
            writer.add_tensor(f"blk.{layer}.{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _matrices() -> dict[str, tuple[int, int]]:
    """[out, in] of one block's matrices under their GGUF names."""
    return {
        "attn_q": (HEADS * HEAD_DIM, HIDDEN),
        "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD_DIM),
        "ffn_gate": (INNER, HIDDEN),
        "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER),
    }


def _q4_0(random: np.random.Generator, outputs: int, inputs: int) -> NDArray[np.uint8]:
    """Blocks of 32: a float16 scale, then 16 bytes of two numbers each. The scale preserves the size of activations."""
    blocks = random.integers(0, 256, (outputs, inputs // 32, 18), dtype=np.uint8)
    deviation = 4.6  # of a number that is uniformly one of -8 ... 7
    scale = np.array([1 / (deviation * inputs**0.5)], np.float16)
    blocks[:, :, :2] = scale.view(np.uint8)
    return blocks.reshape(outputs, -1)


def _add_vocabulary(writer: gguf.GGUFWriter) -> None:
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [3, 3, 3, 2] + [6] * 256
    count = VOCABULARY - len(pieces)
    pieces += [f"\u2581piece{i}" for i in range(count)]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores([-float(i) for i in range(VOCABULARY)])
    writer.add_token_types(kinds + [1] * count)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)


# -- adapters for llama.cpp --------------------------------------------------------------------------------------------

_GGUF_NAMES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def _write_lora_gguf(path: Path, folder: Path, model: Model) -> None:
    writer = gguf.GGUFWriter(path, {"270m": "gemma3", "2b": "gemma"}[model])
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", json.loads((folder / "adapter_config.json").read_text())["lora_alpha"])
    for name, values in load_file(folder / "adapter_model.safetensors").items():
        parts = name.split(".")  # base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight
        layer, projection, half = parts[4], parts[6], parts[7].lower()
        writer.add_tensor(f"blk.{layer}.{_GGUF_NAMES[projection]}.weight.{half}", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def run_logged(command: list[str], log: Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run an install step, its output in a log. Raises RuntimeError with the log's end if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"  $ {' '.join(command)}", flush=True)
    with log.open("ab") as out:
        done = subprocess.run(
            command, cwd=cwd, env={**os.environ, **(env or {})}, stdout=out, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}; {log} ends with:\n{log.read_text()[-2000:]}")
