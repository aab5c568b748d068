"""An application over a fake model and a real adapter store, asked in process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.adapters import AdapterStore
from intaglio.api.app import create_app
from intaglio.api.server import open_batches
from intaglio.api.state import ServerState
from intaglio.lora.peft import AdapterLimits
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.settings import Settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.declared import Declared, DeclaredAnswers
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
    return fake_state(settings, base_config)


def fake_state(settings: Settings, base_config: ModelConfig) -> ServerState:
    models = {name: FakeLLM(name, base_config) for name in (MODEL, SECOND_MODEL)}
    store = AdapterStore(settings.data_path, AdapterLimits(), settings.max_finetunes)
    return ServerState(settings, models, store, open_batches(settings))  # type: ignore[arg-type]


@pytest.fixture
def llm(state: ServerState) -> FakeLLM:
    return state.models[MODEL]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def declared(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The OpenAPI document, which is the same for every state of these tests."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("declared"))
    with TestClient(create_app(fake_state(settings, base_config))) as client:
        return Declared(client.get("/openapi.json").json())


@pytest.fixture
def client(state: ServerState, declared: Declared) -> Iterator[TestClient]:
    """Every answer that it gets is held against the OpenAPI document."""
    with TestClient(DeclaredAnswers(create_app(state), declared), raise_server_exceptions=True) as client:
        yield client
