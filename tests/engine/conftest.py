from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.request import AdapterRef
from tests.helpers.engines import TinyModel, load_tiny, write_adapters
from tests.helpers.kernels import ENGINE_BACKENDS, backend


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """The same weights on each backend that engines are tested with."""
    return {name: load_tiny(tmp_path_factory.mktemp("gemma3"), ops=backend(name)) for name in ENGINE_BACKENDS}


@pytest.fixture(params=ENGINE_BACKENDS)
def tiny(request: pytest.FixtureRequest, backends: dict[str, TinyModel]) -> TinyModel:
    """Seven layers, one of them global, window 8; on each backend in turn."""
    return backends[request.param]


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def adapters(backends: dict[str, TinyModel], adapter_folder: Path) -> list[AdapterRef]:
    return write_adapters(adapter_folder, backends[ENGINE_BACKENDS[0]].model, 3)
