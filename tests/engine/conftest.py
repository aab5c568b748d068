from __future__ import annotations

import pytest

from intaglio.model.gemma import Gemma
from intaglio.request import AdapterRef
from tests.helpers.engines import load_tiny, write_adapters


@pytest.fixture(scope="session")
def tiny_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Gemma:
    """Seven layers, one of them global, window 8."""
    return load_tiny(tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="session")
def adapters(tiny_gemma3: Gemma, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    return write_adapters(tmp_path_factory.mktemp("adapters"), tiny_gemma3, 3)
