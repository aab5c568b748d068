"""A server where what only Linux has is missing, as on macOS: /proc, the CPU affinity, epoll, flags of memory maps.

The kernels and the C library are still those of Linux: this shows that no Python code asks for them.
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from intaglio.model.config import config_from_hf
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.servers import serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

MODEL = "@local/tiny"

# Python runs a module of this name before any other, in every process.
WITHOUT_LINUX = """
import mmap, os, select, sys

PORTABLE = ("MADV_NORMAL", "MADV_RANDOM", "MADV_SEQUENTIAL", "MADV_WILLNEED", "MADV_DONTNEED", "MADV_FREE")
MISSING = {
    mmap: [name for name in dir(mmap) if name.startswith("MADV_") and name not in PORTABLE] + ["MAP_POPULATE"],
    os: ["sched_getaffinity", "sched_setaffinity", "fdatasync", "posix_fadvise", "posix_fallocate", "memfd_create",
         "copy_file_range", "eventfd", "pidfd_open", "splice", "O_DIRECT", "O_PATH"],
    select: ["epoll"],
}
for module, names in MISSING.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

def refuse_linux_files(event, arguments):
    path = str(arguments[0]) if event == "open" else ""
    if path.startswith(("/proc/", "/sys/")) and path != "/proc/self/maps":  # threadpoolctl asks macOS otherwise
        raise FileNotFoundError(2, "not on this system", arguments[0])

sys.addaudithook(refuse_linux_files)
"""


def test_a_server_and_its_engine_need_nothing_that_only_linux_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(WITHOUT_LINUX)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "python"), os.environ.get("PYTHONPATH", "")]))
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(tmp_path / "tiny", config, random_weights(config, 1))
    write_tokenizer_json(tmp_path / "tiny" / "tokenizer.json", tiny_pieces(512))
    arguments = [f"--model={MODEL}={tmp_path / 'tiny'}", "--cache-dir", str(tmp_path / "cache")]
    with serve(arguments, tmp_path / "data") as server:
        assert "half of this machine's memory" in server.log.text  # so /proc was not read
        adapter = write_peft_adapter(tmp_path / "adapter", config_from_hf(config))
        finetunes = f"{server.account()}/ai/finetunes"
        created = httpx.post(finetunes, json={"model": MODEL, "name": "mine"}).json()["result"]
        for file in sorted(adapter.iterdir()):
            form = {"files": {"file": file.read_bytes()}, "data": {"file_name": file.name}}
            sent = httpx.post(f"{finetunes}/{created['id']}/finetune-assets", **form)
            assert sent.status_code == 200, sent.text
        bodies = [{"prompt": "what is", "max_tokens": 6, "temperature": 0}]
        bodies.append(bodies[0] | {"lora": "mine"})
        answers = [httpx.post(f"{server.account()}/ai/run/{MODEL}", json=body).json() for body in bodies]
        texts = [answer["result"]["response"] for answer in answers]
    assert texts[0] != texts[1]
    assert "Traceback" not in server.log.text, server.log.text
