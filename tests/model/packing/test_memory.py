"""Memory of `intaglio pack` with matrices of the 7B's sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkpoints import tiny_config
from tests.helpers.sparse_checkpoints import write_sparse_folder

EMBEDDING_BYTES = 2 * 256_000 * 3072
BOUND_BYTES = 1.5 * EMBEDDING_BYTES + 300 * 10**6
MEASURED_BYTES = 400 * 10**6  # measured: 80 MB on two cores; each further thread takes about 15 MB


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fmt", ["w8", "w4"])
def test_memory_does_not_grow_with_the_embedding_of_the_7b(tmp_path: Path, fmt: str) -> None:
    config = tiny_config("gemma", vocab_size=256_000, hidden_size=3072, intermediate_size=24_576)
    config |= {"num_hidden_layers": 1, "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256}
    folder = write_sparse_folder(tmp_path / "model", config)
    script = (
        "import sys; from pathlib import Path; from intaglio.model.packing.pack import pack\n"
        f"pack(Path({str(folder)!r}), Path({str(tmp_path / 'packed')!r}), {fmt!r})\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    peak = int(done.stdout) * 1024
    assert peak < BOUND_BYTES
    assert peak < MEASURED_BYTES
