"""A file that is no adapter is called what it is, with what to do."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from intaglio.errors import AdapterError
from intaglio.files.adapter_folder import adapter_files
from intaglio.lora.peft.reader import AdapterLimits, check_weights_file, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.helpers.adapters import write_peft_adapter


def torch_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("adapter_model/data.pkl", pickle.dumps({}))
    return made.getvalue()


def plain_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("adapter_config.json", "{}")
    return made.getvalue()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (torch_zip(), "is a pickle, .* never read, .*save_pretrained"),
        (pickle.dumps({"a": 1}, protocol=2), "is a pickle"),
        (pickle.dumps({"a": 1}, protocol=4), "is a pickle"),
        (plain_zip(), "is a zip archive; unpack it"),
        (gzip.compress(b"a" * 100, mtime=0), "is compressed with gzip"),
        (gzip.compress(b"a" * 100, mtime=1_700_000_000), "is compressed with gzip"),
        (b"GGUF\3\0\0\0" + bytes(64), r"is a GGUF file; .* `intaglio adapters upload FILE.gguf`"),
        (b"\n<!DOCTYPE html><html>", "is a web page; .*resolve/main"),
        (b'{"peft_type": "LORA", "r": 4}', "is a JSON text, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer .*; run git lfs pull"),
    ],
)
def test_another_file_in_place_of_the_weights_is_named(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(AdapterError, match=f"^adapter_model.safetensors:? .*{complaint}"):
        check_weights_file(tmp_path / "adapter_model.safetensors", AdapterLimits())


def test_a_whole_checkpoint_is_named(tmp_path: Path, base: ModelConfig) -> None:
    tensors = {f"model.layers.{n}.self_attn.q_proj.weight": np.zeros((4, 4), np.float32) for n in range(3)}
    folder = write_peft_adapter(tmp_path, base)
    save_file(tensors | {"model.norm.weight": np.zeros(4, np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(
        AdapterError, match=r"is a whole checkpoint, not an adapter: of its 4 tensors .* --model ID=FOLDER"
    ):
        read_peft_adapter(folder, base, AdapterLimits())


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        (["adapter_config.json"], "has no adapter_model.safetensors$"),
        (
            ["adapter_config.json", "adapter_model.bin"],
            "no adapter_model.safetensors. It has adapter_model.bin, a pickle",
        ),
        (["config.json", "model.safetensors"], "no adapter_config.json and no .* the folder of a whole model"),
        (["lora.gguf"], "It has lora.gguf: name that file"),
        (["checkpoint-20/adapter_model.safetensors", "trainer_state.json"], "Its folder checkpoint-20 has one"),
    ],
)
def test_a_folder_without_an_adapter_is_named_by_what_it_has(tmp_path: Path, files: list[str], complaint: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(AdapterError, match=complaint):
        adapter_files(tmp_path)
