"""The demo adapters in the package are what Workers AI would take, small, and made by the commands in their cards."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from intaglio.cli import build_cli
from intaglio.demo_adapters import demo_adapter_folders

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = list(demo_adapter_folders().values())


@pytest.fixture
def train_adapter(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import train_adapter  # type: ignore[import-not-found]

    return sys.modules[train_adapter.__name__]


def card_of(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return card


def test_four_demo_adapters_are_shipped() -> None:
    assert [folder.name for folder in FOLDERS] == ["intaglio-chat", "intaglio-json", "intaglio-sql", "intaglio-triage"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_adapter_is_small_readable_by_all_and_names_its_base(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["model_type"], config["base_model_name_or_path"]) == ("gemma", "google/gemma-3-270m")
    rank, size = (16, 8_000_000) if folder.name == "intaglio-chat" else (8, 2_000_000)
    assert config["r"] <= rank
    assert (folder / "adapter_model.safetensors").stat().st_size < size
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_has_the_command_that_makes_the_adapter_again(folder: Path, train_adapter: ModuleType) -> None:
    card = card_of(folder)
    arguments = train_adapter.training_arguments(folder.name)
    assert card["training"] == f"intaglio {shlex.join(arguments)}"
    command = typer.main.get_command(build_cli()).get_command(None, "train")  # type: ignore[attr-defined,arg-type]
    given = command.make_context("train", arguments[1:]).params
    assert given["steps"] is None or given["steps"] == card["steps"]
    assert (given["steps"] is None) == (folder.name == "intaglio-chat"), "it is trained for a number of epochs"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_suggests_what_its_task_says(folder: Path, train_adapter: ModuleType, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / folder.name)
    train_adapter.complete_card(copy)
    assert card_of(copy) == card_of(folder)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_has_the_hash_of_the_data_that_is_written_for_it(
    folder: Path, train_adapter: ModuleType, tmp_path: Path
) -> None:
    train_adapter.write_data(folder.name, tmp_path)
    data = card_of(folder)["data"]
    assert hashlib.sha256((tmp_path / data["file"]).read_bytes()).hexdigest() == data["sha256"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_card_tells_that_the_adapter_had_learnt_its_task(folder: Path) -> None:
    judged = card_of(folder)["held_out"]
    assert judged["before"]["exact"] == 0
    assert judged["after"]["loss"] < 0.2 * judged["before"]["loss"]
    if folder.name != "intaglio-chat":  # of free text few answers are the same word for word
        assert judged["after"]["exact"] > 0.8
