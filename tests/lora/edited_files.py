"""Small changes of an adapter's two files, to spoil a good one in one respect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE

Tensors = dict[str, Any]


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Change the tensors of an adapter in place."""
    tensors = dict(load_file(folder / WEIGHTS_FILE))
    change(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


def set_keys(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(settings | changes))


def spoil(name: str, change: Callable[[Any], Any]) -> Callable[[Tensors], None]:
    """One tensor, changed."""

    def apply(tensors: Tensors) -> None:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))

    return apply


def rename(old: str, new: str) -> Callable[[Tensors], None]:
    """Part of every name that has it, spelt otherwise."""

    def apply(tensors: Tensors) -> None:
        for name in [name for name in tensors if old in name]:
            tensors[name.replace(old, new)] = tensors.pop(name)

    return apply
