"""An application over a fake model and a real adapter store, asked in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.adapters import AdapterStore
from intaglio.api.app import create_app
from intaglio.api.state import ServerState
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.settings import Settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.fakes import FakeLLM

MODEL = "@intaglio/fake"
SECOND_MODEL = "@cf/google/gemma-2b-it-lora"
ACCOUNT = "/client/v4/accounts/acc0"
RUN = f"{ACCOUNT}/ai/run/{MODEL}"


@pytest.fixture(scope="session")
def base_config() -> ModelConfig:
    return config_from_hf(tiny_config("gemma"))


@pytest.fixture(scope="session")
def adapter_folder(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_peft_adapter(tmp_path_factory.mktemp("adapter"), base_config, model_type="gemma")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", max_body_bytes=20_000, max_finetunes=4)


@pytest.fixture
def state(settings: Settings, base_config: ModelConfig) -> ServerState:
    packed = PackedAdapters(settings.data_path / "packed", "float32")
    models = {name: FakeLLM(name, base_config, packed) for name in (MODEL, SECOND_MODEL)}
    store = AdapterStore(settings.data_path, AdapterLimits(), settings.max_finetunes)
    return ServerState(settings, models, store)  # type: ignore[arg-type]


@pytest.fixture
def llm(state: ServerState) -> FakeLLM:
    return state.models[MODEL]  # type: ignore[return-value]


@pytest.fixture
def client(state: ServerState) -> Iterator[TestClient]:
    with TestClient(create_app(state), raise_server_exceptions=True) as client:
        yield client
