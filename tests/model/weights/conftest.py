"""The default model as a file, joined once in the cache that `make serve` uses too."""

from __future__ import annotations

from pathlib import Path

import pytest

from intaglio.model.bundled import bundled_model_path
from intaglio.settings import Settings


@pytest.fixture(scope="session")
def default_model() -> Path:
    return bundled_model_path(Settings().cache_path)
