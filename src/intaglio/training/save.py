"""The adapter on disk: PEFT's two files, as this server and Workers AI accept them, and a card about the training."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from intaglio.errors import TrainingError
from intaglio.files.atomic_write import move_into_place
from intaglio.training.options import ADAPTER_FILES

CARD_FILE = "card.json"

_MODEL_TYPE = "gemma"  # Workers AI requires mistral, gemma or llama, for every version of the family


def make_folder(folder: Path) -> None:
    """Make the folder of an adapter if it is missing, and test before hours of training that it is writable.

    Raises TrainingError if it is not.
    """
    with _unwritable_as_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def round_to_saved(model: Any) -> None:
    """Round the trained weights to what `save_adapter` writes, so that the evaluated weights are the served ones."""
    import torch

    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.copy_(weight.bfloat16())


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Write the adapter of a PeftModel in bfloat16. Existing files are replaced atomically.

    Raises TrainingError if the disk is full.
    """
    model.peft_config["default"].base_model_name_or_path = base_name
    with _unwritable_as_error(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
        # By default PEFT asks the Hugging Face Hub whether the embedding was resized; it was not.
        model.save_pretrained(aside, save_embedding_layers=False)
        config, weights = (Path(aside) / name for name in ADAPTER_FILES)
        _to_bfloat16(weights)
        _finish_config(config)
        for name in ADAPTER_FILES:
            _move_into_place(Path(aside) / name, folder / name)


def _to_bfloat16(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.bfloat16().contiguous() for name, tensor in load_file(path).items()}
    save_file(tensors, path, {"format": "pt"})


def _finish_config(path: Path) -> None:
    """Add the key that Workers AI requires, and sort PEFT's sets, so that the same run writes the same bytes."""
    config = json.loads(path.read_text("utf-8")) | {"model_type": _MODEL_TYPE}
    config["target_modules"] = sorted(config["target_modules"])
    _write_json(path, config)


def save_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write card.json, which is for people and not read by the server. Raises TrainingError like `save_adapter`."""
    with _unwritable_as_error(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as aside:
        _write_json(Path(aside) / CARD_FILE, card)
        _move_into_place(Path(aside) / CARD_FILE, folder / CARD_FILE)


@contextmanager
def _unwritable_as_error(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError  # raised by its writer if the disk is full

    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TrainingError(f"--out {folder} cannot be written: {reason}") from error


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _move_into_place(written: Path, final: Path) -> None:
    written.chmod(0o644)  # safetensors makes files that only their owner can read
    move_into_place(written, final)
