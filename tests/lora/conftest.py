"""A tiny base model's config, and good adapters for it to spoil."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.model.config import ModelConfig, config_from_hf
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config


@pytest.fixture(scope="session")
def base() -> ModelConfig:
    """Gemma 1, three layers, every size different."""
    return config_from_hf(tiny_config("gemma"))


@pytest.fixture
def folder(tmp_path: Path, base: ModelConfig) -> Path:
    """A good adapter on all seven linear layers of all layers."""
    return write_peft_adapter(tmp_path / "adapter", base)
