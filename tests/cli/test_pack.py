"""`intaglio pack` from the command line, and a server of what it wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from intaglio import LLM, SamplingParams
from intaglio.cli import build_cli
from intaglio.errors import IntaglioError, ModelFormatError, PackingError, SettingsError
from intaglio.hub import fetch
from intaglio.hub.remote import Hub
from tests.helpers.hub import FakeHub, fake_hub
from tests.model.packing.test_pack import hf_folder

GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with fake_hub() as hub:
        yield hub


def invoke(*words: object) -> Result:
    return CliRunner().invoke(build_cli(), ["pack", *map(str, words)])


def test_a_packed_file_completes_as_its_source_in_that_format(tmp_path: Path) -> None:
    folder, packed = hf_folder(tmp_path / "model"), tmp_path / "packed"
    shown = invoke(folder, "-o", packed, "--format", "w5").stdout
    assert f"{packed} is written" in shown
    assert f"intaglio serve --model ID={packed}" in shown
    texts = [
        LLM(path, format=fmt, cache_dir=tmp_path / "cache", kv_cache_bytes=1 << 24).generate(["the user"], GREEDY)
        for path, fmt in ((packed, "auto"), (folder, "w5"))
    ]
    assert texts[0] == texts[1]
    assert "already exists" in invoke(folder, "-o", packed, "--format", "w5").stdout
    assert "tensors are intact" in invoke(packed, "--verify").stdout


def test_a_model_of_the_hub_is_fetched_and_packed(
    tmp_path: Path, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.add_folder("acme/tiny", hf_folder(tmp_path / "model"))
    monkeypatch.setattr(fetch, "Hub", lambda: Hub(fake.url, tmp_path / "hub"))
    assert "is written" in invoke("hf:acme/tiny", "-o", tmp_path / "packed").stdout
    assert "model-00002-of-00002.safetensors" in fake.fetched()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ((), SettingsError, "-o FILE is missing"),
        (("-o", "x", "--format", "f32"), SettingsError, "--format is 'f32'; one of w8, w5, w4 is needed"),
        (("--verify",), PackingError, "is not a file of `intaglio pack`"),
    ],
)
def test_options_that_make_no_packed_file_are_refused(
    tmp_path: Path, options: tuple[str, ...], error: type[IntaglioError], message: str
) -> None:
    (tmp_path / "source").write_text("no model")
    result = invoke(tmp_path / "source", *options)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


def test_a_source_that_is_no_model_is_refused(tmp_path: Path) -> None:
    result = invoke(tmp_path / "nowhere", "-o", tmp_path / "packed")
    assert isinstance(result.exception, ModelFormatError)
