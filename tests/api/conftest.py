"""An application with a fake model and a real adapter store, called in process."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.api.startup import open_batches, open_responses
from intaglio.api.state import ServerState
from intaglio.database import opening
from intaglio.finetunes import FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.settings import Settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.fakes import FakeLLM
from tests.helpers.openapi_conformance import Declared, DeclaredResponses

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


@pytest.fixture(scope="session")
def empty_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder as the first start leaves it: copying and opening it takes a third of the time of creating one."""
    folder = tmp_path_factory.mktemp("empty") / "data"
    settings = Settings(data_dir=folder)
    _open_store(settings).close()
    open_batches(settings).close()
    open_responses(settings).close()
    return folder


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The path at which each test gets a fresh data folder. It is the same for all tests so that SQLAlchemy's engines
    can be reused with their compiled statements: compiling takes longer than executing. Connections are not reused.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "sqlite_engine", cache(opening.sqlite_engine))
        yield tmp_path_factory.mktemp("tests") / "data"


@pytest.fixture(scope="session")
def read_settings(data_folder: Path) -> Settings:
    """Built once, because building reads the environment for every field."""
    return Settings(data_dir=data_folder, max_body_bytes=20_000, max_finetunes=4)


@pytest.fixture
def settings(data_folder: Path, empty_data: Path, read_settings: Settings) -> Iterator[Settings]:
    shutil.rmtree(data_folder, ignore_errors=True)  # left by a test whose removal failed
    shutil.copytree(empty_data, data_folder)
    yield read_settings.model_copy()
    shutil.rmtree(data_folder)


@pytest.fixture
def state(settings: Settings, base_config: ModelConfig) -> ServerState:
    return fake_state(settings, base_config)


class Current:
    """Forwards to an object of the current test. The application is built only once, because that takes longer than
    most tests.
    """

    def __init__(self, find: Callable[[], object]) -> None:
        self._find = find

    def __getattr__(self, name: str) -> Any:
        return getattr(self._find(), name)


class CurrentState(Current):
    """The state of the test that runs now. Routes keep the finetune store they were built with, so it forwards too."""

    def __init__(self, first: ServerState) -> None:
        self.now = first
        super().__init__(lambda: self.now)
        self.finetunes = Current(lambda: self.now.finetunes)


class OpenedWhenUsed:
    """An object that is made when its first attribute is read: most tests of the API use no database."""

    def __init__(self, open_it: Callable[[], Any]) -> None:
        self._open = open_it
        self._opened: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._opened is None:
            self._opened = self._open()
        return getattr(self._opened, name)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


@pytest.fixture(scope="session")
def current_state(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CurrentState]:
    first = fake_state(Settings(data_dir=tmp_path_factory.mktemp("first")), base_config)
    yield CurrentState(first)
    asyncio.run(first.close())


@pytest.fixture(scope="session")
def shared_app(current_state: CurrentState) -> FastAPI:
    return create_app(current_state)  # type: ignore[arg-type]


def fake_state(settings: Settings, base_config: ModelConfig) -> ServerState:
    models = {name: FakeLLM(name, base_config) for name in (MODEL, SECOND_MODEL)}
    store, batches = OpenedWhenUsed(lambda: _open_store(settings)), OpenedWhenUsed(lambda: open_batches(settings))
    responses = OpenedWhenUsed(lambda: open_responses(settings))
    return ServerState(settings, models, store, batches, responses)  # type: ignore[arg-type]


def _open_store(settings: Settings) -> FinetuneStore:
    return FinetuneStore(settings.data_path, AdapterLimits(), settings.max_finetunes)


@pytest.fixture
def llm(state: ServerState) -> FakeLLM:
    return state.models[MODEL]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def declared(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Declared:
    """The OpenAPI document, which is the same for every state of these tests."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("declared"))
    with TestClient(create_app(fake_state(settings, base_config))) as client:
        return Declared(client.get("/openapi.json").json())


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """The event loop of all tests that use `client`, in a thread of its own."""
    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def client(
    state: ServerState, shared_app: FastAPI, current_state: CurrentState, declared: Declared, portal: BlockingPortal
) -> Iterator[TestClient]:
    """Checks every response against the OpenAPI document.

    What the server does at its start and end is left out, because it takes longer than most requests: no batch is run
    and no demo adapter verified. The fixture `lifespan` adds both.
    """
    current_state.now = state
    client = TestClient(DeclaredResponses(shared_app, declared), raise_server_exceptions=True)
    client.portal = portal
    yield client
    client.portal = None
    portal.call(state.close)


@pytest.fixture
def lifespan(client: TestClient, state: ServerState, shared_app: FastAPI, portal: BlockingPortal) -> Iterator[None]:
    """What the server does from its start to its end: it runs batches and verifies demo adapters."""
    with portal.wrap_async_context_manager(shared_app.router.lifespan_context(shared_app)):
        yield
