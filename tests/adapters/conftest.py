from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from intaglio.adapters import AdapterStore, Finetune
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig, config_from_hf
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL = "@intaglio/fake"


@pytest.fixture(scope="session")
def base_config() -> ModelConfig:
    return config_from_hf(tiny_config("gemma"))


@pytest.fixture(scope="session")
def adapter_folder(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_peft_adapter(tmp_path_factory.mktemp("adapter"), base_config, layers=[1])


@pytest.fixture(scope="session")
def new_folder(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another training of the same shape: either of its files passes every check with the first one's other file."""
    return write_peft_adapter(tmp_path_factory.mktemp("new"), base_config, layers=[1], seed=9, alpha=16)


class SetClock:
    """A clock that stands still between reads but for a microsecond, and that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(microseconds=1)
        return self.now


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data: Path, clock: SetClock) -> Iterator[AdapterStore]:
    store = AdapterStore(data, AdapterLimits(), max_finetunes=3, clock=clock)
    yield store
    store.close()


def create(store: AdapterStore, name: str = "mine", account: str = "acc", public: bool = False) -> Finetune:
    return store.create(account=account, name=name, model=MODEL, description="", public=public)


def packed_beside(adapter_folder: Path) -> PackedAdapters:
    """Where `add` has the adapter of a folder packed."""
    return PackedAdapters(adapter_folder / "packed", "float32")


def add(
    store: AdapterStore, path: Path, config: ModelConfig, name: str = "mine", *, keep_other_file: bool = False
) -> Finetune:
    """Upload one file of an adapter folder under its own name."""
    with store.stage() as staged:
        staged.write(path.read_bytes())
        packed = packed_beside(path.parent)
        return store.add_file("acc", name, path.name, staged, config, packed, keep_other_file=keep_other_file)


def add_both(store: AdapterStore, folder: Path, config: ModelConfig, name: str = "mine") -> Finetune:
    """Upload both files, the config first as wrangler does."""
    add(store, folder / CONFIG, config, name)
    return add(store, folder / WEIGHTS, config, name)


def digest_in(folder: str | Path, config: ModelConfig) -> str:
    """Digest of the adapter whose two files lie in a folder."""
    return read_peft_adapter(Path(folder), config, AdapterLimits()).digest


def stored_files(data: Path) -> list[Path]:
    """Every file in the store's three folders."""
    folders = [data / name for name in ("blobs", "incoming", "adapters")]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
