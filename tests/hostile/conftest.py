"""The valid adapter that cases spoil, the API in process with a fake model, and a whole server with a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import fake_state
from tests.helpers.openapi_conformance import Declared, DeclaredResponses
from tests.hostile.good_adapter import Files, good_files, tiny_base
from tests.hostile.tiny_server import DEADLINE_S, TinyServer, tiny_server


@pytest.fixture(scope="session")
def base() -> ModelConfig:
    return tiny_base()


@pytest.fixture(scope="session")
def good(base: ModelConfig) -> Files:
    """The valid files that every case spoils."""
    return good_files(base)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"), max_adapter_file_bytes=20_000_000, max_finetunes=100)


@pytest.fixture(scope="module")
def data(settings: Settings) -> Path:
    return settings.data_path


@pytest.fixture(scope="module")
def client(settings: Settings, base: ModelConfig) -> Iterator[TestClient]:
    """One server for all tests of a file, so that anything a case leaves behind disturbs the next. Every response is
    checked against the OpenAPI document.
    """
    app = create_app(fake_state(settings, base))
    with TestClient(app) as plain:
        declared = Declared(plain.get("/openapi.json").json())
        with TestClient(DeclaredResponses(app, declared), raise_server_exceptions=True) as client:
            yield client


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    root = tmp_path_factory.mktemp("live")
    limits = httpx.Limits(max_connections=100)
    with (
        tiny_server(root, root / "data", "--max-finetunes", "1000") as server,
        httpx.Client(timeout=DEADLINE_S, limits=limits) as http,
    ):
        yield TinyServer(server, http)


@pytest.fixture
def unharmed(live: TinyServer) -> Iterator[None]:
    """After the test the server still responds, has logged no traceback and has no unfinished upload."""
    yield
    live.check_unharmed()
