from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from intaglio.adapters import AdapterStore, Finetune
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits
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


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Iterator[AdapterStore]:
    store = AdapterStore(data, AdapterLimits(), max_finetunes=3)
    yield store
    store.close()


def create(store: AdapterStore, name: str = "mine", account: str = "acc", public: bool = False) -> Finetune:
    return store.create(account=account, name=name, model=MODEL, description="", public=public)


def packed_beside(adapter_folder: Path) -> PackedAdapters:
    """Where `add` has the adapter of a folder packed."""
    return PackedAdapters(adapter_folder / "packed", "float32")


def add(store: AdapterStore, path: Path, config: ModelConfig, name: str = "mine") -> Finetune:
    """Upload one file of an adapter folder under its own name."""
    with store.stage() as staged:
        staged.write(path.read_bytes())
        return store.add_file("acc", name, path.name, staged, config, packed_beside(path.parent))


def stored_files(data: Path) -> list[Path]:
    """Every file in the store's three folders."""
    folders = [data / name for name in ("blobs", "incoming", "adapters")]
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
