from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from intaglio.errors import AdapterError, FinetuneError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.finetunes.demos import read_demo_adapters
from intaglio.finetunes.records import SuggestedUse
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from tests.finetunes.conftest import CONFIG, MODEL, WEIGHTS

CARD = {"name": "intaglio-demo", "description": "shows it", "example_prompt": "Try me", "training": "ignored"}


@pytest.fixture
def demos(adapter_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demos" / "demo"
    shutil.copytree(adapter_folder, folder)
    (folder / "card.json").write_text(json.dumps(CARD))
    return folder.parent


def test_a_demo_is_a_ready_public_finetune_of_every_account(demos: Path, base_config: ModelConfig, data: Path) -> None:
    found = read_demo_adapters(demos, MODEL, base_config, AdapterLimits())
    store = FinetuneStore(data, AdapterLimits(), 3, found)
    (listed,) = store.list_public(10, 0)
    assert (listed.name, listed.description, listed.state) == ("intaglio-demo", "shows it", FinetuneState.READY)
    assert listed.files.keys() == {CONFIG, WEIGHTS}
    for key in ("intaglio-demo", listed.id):
        ref = store.resolve("anybody", key, MODEL)
        assert (ref.digest, ref.folder) == (listed.digest, str(demos / "demo"))
    assert store.list_account("anybody") == []
    with pytest.raises(FinetuneError, match="comes with the server"):
        store.delete("anybody", listed.id)
    assert [demo.name for demo in store.list_demos(MODEL)] == ["intaglio-demo"]
    assert store.list_demos("@cf/other") == []
    store.close()


def test_the_id_is_the_same_at_every_start(demos: Path, base_config: ModelConfig) -> None:
    first, again = (read_demo_adapters(demos, MODEL, base_config, AdapterLimits()) for _ in range(2))
    assert first[0].id == again[0].id


def test_a_card_may_suggest_how_its_adapter_is_asked(demos: Path, base_config: ModelConfig) -> None:
    (unsaid,) = read_demo_adapters(demos, MODEL, base_config, AdapterLimits())
    assert unsaid.suggested is None
    card = CARD | {"suggested": {"form": "raw", "max_tokens": 12}}
    (demos / "demo" / "card.json").write_text(json.dumps(card))
    (said,) = read_demo_adapters(demos, MODEL, base_config, AdapterLimits())
    assert said.suggested == SuggestedUse("raw", max_tokens=12)


@pytest.mark.parametrize("suggested", [{"form": "chat"}, {"form": "raw", "max_tokens": 0}, {"temperature": 1}])
def test_a_suggestion_that_is_no_suggestion_stops_the_start(
    demos: Path, base_config: ModelConfig, suggested: dict[str, object]
) -> None:
    (demos / "demo" / "card.json").write_text(json.dumps(CARD | {"suggested": suggested}))
    with pytest.raises(AdapterError, match=r"demo adapter demo: card\.json"):
        read_demo_adapters(demos, MODEL, base_config, AdapterLimits())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (WEIGHTS, b"broken"),
        (CONFIG, b"[]"),
        ("card.json", b"{}"),
        ("card.json", b"{"),
        ("card.json", b'{"name": "mine", "description": "", "example_prompt": ""}'),
    ],
)
def test_a_broken_demo_stops_the_start_and_is_named(
    demos: Path, base_config: ModelConfig, file: str, content: bytes
) -> None:
    (demos / "demo" / file).write_bytes(content)
    with pytest.raises(AdapterError, match="demo adapter demo: "):
        read_demo_adapters(demos, MODEL, base_config, AdapterLimits())


def test_a_server_without_demos_starts(tmp_path: Path, base_config: ModelConfig) -> None:
    assert read_demo_adapters(tmp_path / "nowhere", MODEL, base_config, AdapterLimits()) == []
