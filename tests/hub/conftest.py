from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.hub.remote import Hub
from tests.helpers.hub import FakeHub, fake_hub


@pytest.fixture(autouse=True)
def no_settings_of_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No token, offline mode or cache of the user or of another test."""
    import huggingface_hub.constants

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def waits() -> list[float]:
    """The seconds that a download would have waited between attempts."""
    return []


@pytest.fixture
def hub(fake: FakeHub, tmp_path: Path, waits: list[float]) -> Hub:
    return Hub(fake.url, tmp_path / "cache", waits.append)
