"""The two files of an adapter in a folder, under the names that trainers give them.

PEFT, TRL, Unsloth, Axolotl, LLaMA-Factory    adapter_config.json, adapter_model.safetensors
MLX-LM                                        adapter_config.json, adapters.safetensors
"""

from __future__ import annotations

import os
from pathlib import Path

from intaglio.errors import AdapterError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MLX_WEIGHTS_FILE = "adapters.safetensors"


def adapter_paths(folder: Path) -> dict[str, Path]:
    """The paths of CONFIG_FILE and WEIGHTS_FILE, which may be missing. Raises AdapterError if one is, and what the
    folder has says what it is instead.
    """
    found = {CONFIG_FILE: folder / CONFIG_FILE, WEIGHTS_FILE: folder / WEIGHTS_FILE}
    if not os.path.lexists(found[WEIGHTS_FILE]) and (folder / MLX_WEIGHTS_FILE).is_file():
        found[WEIGHTS_FILE] = folder / MLX_WEIGHTS_FILE
    missing = [name for name, path in found.items() if not os.path.lexists(path)]
    hint = _hint(folder) if missing else ""
    if hint:
        raise AdapterError(f"{folder} has no {' and no '.join(missing)}. {hint}")
    return found


def adapter_files(folder: Path) -> dict[str, Path]:
    """As `adapter_paths`; also raises AdapterError if one of them is not a file."""
    found = adapter_paths(folder)
    missing = [name for name, path in found.items() if not path.is_file()]
    if missing:
        raise AdapterError(f"{folder} has no {' and no '.join(missing)}")
    return found


def _hint(folder: Path) -> str:
    """What the folder has instead, and what to do."""
    if (folder / "adapter_model.bin").exists():
        return (
            "It has adapter_model.bin, a pickle, which is never read, since unpickling can run any code. Save it as "
            "safetensors: PeftModel.from_pretrained(base, folder).save_pretrained(new_folder)"
        )
    ggufs = sorted(path.name for path in folder.glob("*.gguf"))
    if ggufs:
        return f"It has {ggufs[0]}: name that file instead of the folder, if it is an adapter"
    if any((folder / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")):
        return "It is the folder of a whole model, which is served with --model ID=FOLDER"
    inside = sorted(path.parent.name for path in folder.glob(f"*/{WEIGHTS_FILE}"))
    return f"Its folder {inside[-1]} has one: name that" if inside else ""
