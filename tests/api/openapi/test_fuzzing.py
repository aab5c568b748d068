"""Schemathesis against the whole API over a fake model: no 5xx, every answer as declared, what is wrong refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.api.app import create_app
from intaglio.api.startup import open_batches, open_responses
from intaglio.api.state import ServerState
from intaglio.finetunes import FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from intaglio.settings import DEFAULT_MODEL_ID, Settings
from tests.api.openapi.fuzzing import DRAWN_PHASES, fuzz
from tests.helpers.fakes import FakeLLM, verified_by_reading
from tests.helpers.live_server import live_server

DEADLINE_S = 110.0
ACCOUNT = "local"
FINETUNES = ("empty", "ready")


@pytest.fixture
def state(base_config: ModelConfig, adapter_folder: Path, tmp_path: Path) -> ServerState:
    """One finetune that answers, and one without files."""

    def verify(folder: str) -> VerifiedAdapter:
        return verified_by_reading(folder, base_config)

    settings = Settings(data_dir=tmp_path / "data", max_body_bytes=200_000)
    store = FinetuneStore(settings.data_path, AdapterLimits(), settings.max_finetunes)
    for name in FINETUNES:
        store.create(account=ACCOUNT, name=name, model=DEFAULT_MODEL_ID, description="", public=False)
    for file in sorted(adapter_folder.iterdir()):
        with store.staging.new_file() as staged:
            staged.write(file.read_bytes())
            store.add_file(ACCOUNT, "ready", file.name, staged, base_config, verify)
    llm = FakeLLM(DEFAULT_MODEL_ID, base_config)
    return ServerState(settings, {DEFAULT_MODEL_ID: llm}, store, open_batches(settings), open_responses(settings))  # type: ignore[dict-item]


@pytest.fixture
def url(state: ServerState) -> Iterator[str]:
    with live_server(create_app(state)) as address:
        yield address


@pytest.mark.slow
def test_responses_to_schemathesis_are_as_declared(state: ServerState, url: str, tmp_path: Path) -> None:
    fuzz(url, tmp_path, phases=DRAWN_PHASES, max_examples=10, deadline_s=DEADLINE_S)
    assert state.models[DEFAULT_MODEL_ID].num_open == 0  # type: ignore[attr-defined]
    uploaded_at_random = [one for one in state.finetunes.list_account(ACCOUNT) if one.name != "ready"]
    assert [one.name for one in uploaded_at_random if one.files or one.digest] == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_bound_of_every_field_is_as_declared(url: str, tmp_path: Path) -> None:
    fuzz(url, tmp_path, max_examples=50, deadline_s=500.0)
