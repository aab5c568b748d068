from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.api.app import create_app
from intaglio.model.config import config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import MODEL, fake_state
from tests.helpers.checkpoints import tiny_config
from tests.helpers.commands import run_in_process
from tests.helpers.live_server import live_server


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    with live_server(create_app(fake_state(settings, config_from_hf(tiny_config("gemma"))))) as address:
        yield address


def test_served_models_stand_before_those_without_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    found = run_in_process(monkeypatch, capsys, "models", "--url", url)
    rows = [line.split() for line in found.out.splitlines() if line.startswith("  @")]
    served = [row[1] for row in rows]
    assert served == sorted(served, reverse=True), "yes, then no"
    assert [MODEL, "yes"] in [row[:2] for row in rows]
    assert ["@cf/google/gemma-7b-it-lora", "no", "weights", "3500"] in [row[:4] for row in rows]


def test_the_list_comes_as_json_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    found = run_in_process(monkeypatch, capsys, "models", "--url", url, "--json").json
    assert MODEL in [one["name"] for one in found]


def test_without_a_server_the_address_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = run_in_process(monkeypatch, capsys, "models", "--url", "127.0.0.1:1")
    assert (found.status, "no response from http://127.0.0.1:1" in found.err) == (1, True)
