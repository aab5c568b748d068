"""A server over a fake model and a real adapter store, on a real port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from intaglio.api.state import ServerState
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import CurrentState, current_state, fake_state, shared_app
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.live_server import live_server

__all__ = ["current_state", "shared_app"]  # fixtures of the API's tests that are used here too

TOKEN = "right"


@pytest.fixture(scope="session")
def base_config() -> ModelConfig:
    return config_from_hf(tiny_config("gemma"))


@pytest.fixture(scope="module")
def folders(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters."""
    folder = tmp_path_factory.mktemp("adapters")
    return [write_peft_adapter(folder / str(seed), base_config, seed=seed, model_type="gemma") for seed in (1, 2)]


@pytest.fixture
def state(tmp_path: Path, base_config: ModelConfig) -> ServerState:
    return fake_state(Settings(data_dir=tmp_path / "data", api_tokens=(TOKEN,)), base_config)


@pytest.fixture
def url(state: ServerState, current_state: CurrentState, shared_app: FastAPI) -> Iterator[str]:
    current_state.now = state
    with live_server(shared_app) as address:
        yield address
