"""`intaglio pack` of a folder as large as Gemma 7B's: `python -m benchmarks.packing [FOLDER]`.

Makes a Hugging Face folder in FOLDER (the benchmarks' own by default) with the true shapes, names, shards and
tokenizer of gemma-7b and random weights in bfloat16 (17 GB; it is kept), packs it in each format, verifies it, and
starts a server with it. Prints seconds, and the peak of resident memory with and without pages of mapped files.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.helpers.servers import serve

from benchmarks.models import CONTEXT, HEAD_DIM, SHAPE_7B, TOKENIZER, VOCABULARY
from intaglio.model.config import config_from_hf

FORMATS = ("w8", "w4")
SHARD_BYTES = 5 * 10**9
POOL_WEIGHTS = 1 << 26  # random numbers, of which each tensor takes a window
_STATUS = re.compile(r"^(VmHWM|RssAnon):\s+(\d+) kB$", re.MULTILINE)

CONFIG: dict[str, Any] = {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "hidden_act": "gelu",
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "head_dim": HEAD_DIM,
    "hidden_size": SHAPE_7B.hidden,
    "intermediate_size": SHAPE_7B.inner,
    "num_hidden_layers": SHAPE_7B.layers,
    "num_attention_heads": SHAPE_7B.heads,
    "num_key_value_heads": SHAPE_7B.kv_heads,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def write_folder(folder: Path) -> None:
    """The folder, with random weights in shards; nothing if it is there."""
    if (folder / "model.safetensors.index.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for file in (TOKENIZER, TOKENIZER.with_name("tokenizer_config.json")):
        shutil.copy(file, folder / file.name)
    shapes = config_from_hf(CONFIG, "bfloat16").tensor_shapes()
    shards = list(_shards(shapes))
    files = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    pool = _random_bfloat16()
    for file, names in zip(files, shards, strict=True):
        _write_shard(folder / file, {name: shapes[name] for name in names}, pool)
    weight_map = {name: file for file, names in zip(files, shards, strict=True) for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _shards(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    names: list[str] = []
    used = 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        if names and used + size > SHARD_BYTES:
            yield names
            names, used = [], 0
        names.append(name)
        used += size
    yield names


def _random_bfloat16() -> NDArray[np.uint16]:
    values = np.random.default_rng(7).standard_normal(POOL_WEIGHTS, np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def _write_shard(path: Path, shapes: dict[str, tuple[int, ...]], pool: NDArray[np.uint16]) -> None:
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    draw = np.random.default_rng(len(text))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            left = math.prod(shape)
            while left:
                start = int(draw.integers(0, POOL_WEIGHTS // 2))
                count = min(left, POOL_WEIGHTS - start)
                file.write(pool[start : start + count].tobytes())
                left -= count


def run_measured(command: list[str]) -> dict[str, float]:
    """Run a command. Returns its seconds, its peak of resident memory, and of that without mapped files, in MB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks = {"VmHWM": 0, "RssAnon": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:  # it has ended
                return
            for name, kilobytes in _STATUS.findall(status):
                peaks[name] = max(peaks[name], int(kilobytes))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise subprocess.CalledProcessError(code, command)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_mb": peaks["VmHWM"] * 1.024e-3, "anonymous_mb": peaks["RssAnon"] * 1.024e-3}


def main(folder: Path) -> None:
    source = folder / "gemma-7b-shape"
    begin = time.perf_counter()
    write_folder(source)
    print(f"the folder is written: {time.perf_counter() - begin:.0f} s", flush=True)
    intaglio = [sys.executable, "-m", "intaglio.cli"]
    for fmt in FORMATS:
        packed = folder / f"gemma-7b-shape.{fmt}"
        packed.unlink(missing_ok=True)
        print(
            f"{fmt}, pack",
            run_measured([*intaglio, "pack", str(source), "-o", str(packed), "--format", fmt]),
            flush=True,
        )
        print(f"{fmt}, --verify", run_measured([*intaglio, "pack", str(packed), "--verify"]), flush=True)
        print(f"{fmt}, size: {packed.stat().st_size / 1e6:,.0f} MB", flush=True)
        with tempfile.TemporaryDirectory(prefix="bench-packing-", dir=folder) as home:
            options = ["--model", f"@cf/google/gemma-7b-it-lora={packed}", "--cache-dir", f"{home}/cache"]
            for start in ("first", "second"):
                begin = time.perf_counter()
                with serve(options, Path(home) / "data", deadline_s=1800):
                    print(f"{fmt}, {start} start of a server: {time.perf_counter() - begin:.0f} s", flush=True)
        packed.unlink()
        os.sync()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.home() / ".cache/intaglio-bench" / "models")
