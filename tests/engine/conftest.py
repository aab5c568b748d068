from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.ops import Ops
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from intaglio.request import AdapterRef
from tests.helpers.engines import TinyModel, load_tiny, write_adapters


@pytest.fixture(scope="session")
def bodies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TinyModel]:
    """The same weights on both bodies of `Ops`."""
    made: dict[str, Ops] = {"reference": ReferenceOps(), "cpu": CpuOps(2)}
    return {name: load_tiny(tmp_path_factory.mktemp("gemma3"), ops=ops) for name, ops in made.items()}


@pytest.fixture(params=["reference", "cpu"])
def tiny(request: pytest.FixtureRequest, bodies: dict[str, TinyModel]) -> TinyModel:
    """Seven layers, one of them global, window 8; on each body in turn."""
    return bodies[request.param]


@pytest.fixture(scope="session")
def adapter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="session")
def adapters(bodies: dict[str, TinyModel], adapter_folder: Path) -> list[AdapterRef]:
    return write_adapters(adapter_folder, bodies["reference"].model, 3)
