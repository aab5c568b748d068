"""Uploading and downloading a file of any size needs a few MB of memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from intaglio.finetunes import FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from tests.finetunes.conftest import VERIFICATION, WEIGHTS, create

CHUNK = 1 << 18


@pytest.mark.slow
def test_a_large_file_is_never_held_in_memory(data: Path, tmp_path: Path, base_config: ModelConfig) -> None:
    size = 200_000_000
    source = tmp_path / WEIGHTS
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    rank = 50
    a = np.zeros((rank, size // 2 // rank), np.float16)
    b = np.zeros((16, rank), np.float16)
    save_file({f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}, source, metadata={"format": "pt"})
    del a, b
    assert source.stat().st_size > size
    verified = VerifiedAdapter("0" * 64, VERIFICATION)
    store = FinetuneStore(data, AdapterLimits(max_file_bytes=1 << 30), max_finetunes=1)
    create(store)
    tracemalloc.start()
    with store.staging.new_file() as staged, source.open("rb") as file:
        while chunk := file.read(CHUNK):
            staged.write(chunk)
        store.add_file("acc", "mine", WEIGHTS, staged, base_config, lambda _folder: verified)
    with store.open_file("acc", "mine", WEIGHTS).file as stored:
        hashed = hashlib.sha256()
        while chunk := stored.read(CHUNK):
            hashed.update(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert hashed.hexdigest() == staged.sha256
    assert peak < 50_000_000
    store.close()
