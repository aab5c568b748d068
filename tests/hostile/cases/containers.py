"""Files of another format: archives, decompression bombs, pickles, web pages."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.hostile.case import HostileCase, bad_config_text, bad_weights
from tests.hostile.good_adapter import join_file, with_header

BOMB_BYTES = 1 << 24  # decompressed; a thousandth of that compressed


class Trap:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self._path,))


def pickles(trap: Path) -> dict[str, bytes]:
    """Pickles in every container that loaders open."""
    bare = pickle.dumps(Trap(trap))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:  # what torch.save writes
        file.writestr("archive/data.pkl", bare)
        file.writestr("archive/version", b"3\n")
    array = io.BytesIO()
    np.save(array, np.array([Trap(trap)], object), allow_pickle=True)
    return {
        "protocol 4": bare,
        "protocol 0": pickle.dumps(Trap(trap), protocol=0),
        "torch's zip": archive.getvalue(),
        "torch's old form": pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + bare,
        "an array of objects": array.getvalue(),
        "behind a header": join_file({"__metadata__": {"format": "pt"}}, bare),
        "in the length of the header": struct.pack("<Q", len(bare)) + bare,
    }


def zipped(method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return buffer.getvalue()


def tarred(name: str, data: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        info = tarfile.TarInfo(name)
        info.size, info.type, info.linkname = len(data), kind, link
        file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


MAKERS: dict[str, Callable[[bytes], bytes]] = {
    "a zip of the file": lambda good: zipped(**{"adapter_model.safetensors": good}),
    "a zip bomb": lambda good: zipped(**{"adapter_model.safetensors": bytes(BOMB_BYTES)}),
    "a tar with a link": lambda good: tarred("adapter_model.safetensors", b"", tarfile.SYMTYPE, "/etc/passwd"),
    "gzip of the file": gzip.compress,
    "a gzip bomb": lambda good: gzip.compress(bytes(BOMB_BYTES)),
    "GGUF": lambda good: b"GGUF" + struct.pack("<IQQ", 3, 14, 5) + good,
    "an array of NumPy": lambda good: b"\x93NUMPY\x01\x00v\x00" + good,
    "a pointer of git LFS": lambda good: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 132\n"
    ),
    "a page of a web site": lambda good: b"<!DOCTYPE html><html><body>404</body></html>",
    "the config": lambda good: json.dumps({"peft_type": "LORA", "r": 4}).encode(),
    "an index of shards": lambda good: json.dumps({"metadata": {}, "weight_map": {"a": "b"}}).encode(),
    "a zip behind the good file": lambda good: good + zipped(**{"a": b"b"}),
    "a zip before the good file": lambda good: zipped(**{"a": b"b"}) + good,
    "a zip in the header": with_header(lambda header: header.update(zip=zipped(a=b"b").hex())),
}

NO_JSON = "not valid JSON|more than 1048576 bytes|run git lfs pull"

CASES: tuple[HostileCase, ...] = (
    *(
        bad_weights(f"{name} for weights", "adapter_model.safetensors", make, slow="bomb" in name)
        for name, make in MAKERS.items()
    ),
    *(
        bad_config_text(f"{name} for a config", NO_JSON, make, slow="bomb" in name)
        for name, make in MAKERS.items()
        if name in ("a zip of the file", "a gzip bomb", "a pointer of git LFS", "a page of a web site")
    ),
    bad_config_text("an index of shards for a config", "peft_type is missing", MAKERS["an index of shards"]),
    bad_config_text("the weights for a config", "not valid JSON", lambda good: join_file({"a": 1}, bytes(100))),
)
