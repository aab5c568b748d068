from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.model.pretrained import is_pretrained


@pytest.mark.parametrize(
    "path",
    [
        "models/gemma-2b",
        "models/gemma-2-9b",
        "models/gemma-3-270m",
        "models/gemma-3-1b-pt",
        "hub/models--google--gemma-3-4b-pt/snapshots/0123abcd",
    ],
)
def test_the_names_of_published_pretrained_models_are_known(path: str) -> None:
    assert is_pretrained(Path(path), stored_name=None, has_template=False)


@pytest.mark.parametrize(
    "path",
    [
        "models/gemma-2b-it",
        "models/gemma-1.1-7b-it",
        "models/gemma-3-270m-it",
        "models/gemma-3-1b-it",
        "models/gemma-3-270m-orders",
        "models/my-assistant",
        "hub/models--someone--gemma-3-270m/snapshots/0123abcd",
        "models/gemma-2b/checkpoint-500",
    ],
)
def test_an_instruction_tuned_model_or_a_finetune_is_not_called_pretrained(path: str) -> None:
    assert not is_pretrained(Path(path), stored_name=None, has_template=False)


@pytest.mark.parametrize("name", ["Gemma 3 270m", "google/gemma-3-270m", "Gemma 3 1b Pt"])
def test_a_gguf_file_is_known_by_the_name_in_it(name: str) -> None:
    assert is_pretrained(Path("weights.gguf"), stored_name=name, has_template=False)


def test_the_name_in_a_gguf_file_counts_before_the_files_own() -> None:
    assert not is_pretrained(Path("gemma-3-270m.gguf"), stored_name="Gemma 3 270m It", has_template=False)


def test_a_gguf_file_without_a_name_is_known_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "gemma-3-270m-Q4_K_M.gguf"
    path.touch()
    assert is_pretrained(path, stored_name=None, has_template=False)


def test_a_checkpoint_with_a_chat_template_is_not_called_pretrained() -> None:
    assert not is_pretrained(Path("models/gemma-3-270m"), stored_name=None, has_template=True)
