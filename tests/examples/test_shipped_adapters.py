"""The demo adapters in the package are what Workers AI would take, and small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import intaglio

FOLDERS = sorted(folder for folder in (Path(intaglio.__file__).parent / "demo_adapters").iterdir() if folder.is_dir())


def test_three_demo_adapters_are_shipped() -> None:
    assert [folder.name for folder in FOLDERS] == ["intaglio-json", "intaglio-sql", "intaglio-triage"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_adapter_is_small_names_its_base_and_can_be_made_again(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    card = json.loads((folder / "card.json").read_text())
    assert (config["model_type"], config["base_model_name_or_path"]) == ("gemma", "google/gemma-3-270m")
    assert config["r"] <= 8
    assert (folder / "adapter_model.safetensors").stat().st_size < 2_000_000
    assert card["name"] == folder.name
    assert card["training"].startswith(f"python examples/train_adapter.py {folder.name} ")
