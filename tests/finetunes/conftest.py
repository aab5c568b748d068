from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from intaglio.finetunes import Finetune, FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig, config_from_hf
from intaglio.request import Verification, VerifiedAdapter
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.verifications import VERIFICATION

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL = "@intaglio/fake"

OpenStore = Callable[..., FinetuneStore]


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


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Where the rows are: SQLite in the data folder, or a new database of a real PostgreSQL."""
    url: str | None = request.getfixturevalue("postgresql_url") if request.param == "postgresql" else None
    return url


@pytest.fixture
def open_store(data: Path, database_url: str | None, clock: SetClock) -> Iterator[OpenStore]:
    """Opens the store of this test, again if asked, as another server or after a restart. All are closed in the end."""
    opened: list[FinetuneStore] = []

    def open_one(**options: Any) -> FinetuneStore:
        options = {"max_finetunes": 3, "clock": clock, "database_url": database_url} | options
        opened.append(FinetuneStore(data, AdapterLimits(), **options))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OpenStore) -> FinetuneStore:
    return open_store()


def create(store: FinetuneStore, name: str = "mine", account: str = "acc", public: bool = False) -> Finetune:
    return store.create(account=account, name=name, model=MODEL, description="", public=public)


Verify = Callable[[str], VerifiedAdapter]


def verifies(config: ModelConfig, verification: Verification = VERIFICATION) -> Verify:
    """An engine that reads an adapter and verifies it, whatever it does."""
    return lambda folder: VerifiedAdapter(digest_in(folder, config), verification)


def add(
    store: FinetuneStore,
    path: Path,
    config: ModelConfig,
    name: str = "mine",
    *,
    verify: Verify | None = None,
    keep_other_file: bool = False,
) -> Finetune:
    """Upload one file of an adapter folder under its own name."""
    with store.staging.new_file() as staged:
        staged.write(path.read_bytes())
        verify = verify or verifies(config)
        return store.add_file("acc", name, path.name, staged, config, verify, keep_other_file=keep_other_file)


def add_both(store: FinetuneStore, folder: Path, config: ModelConfig, name: str = "mine") -> Finetune:
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


def move_database(data: Path, name: str, new_name: str) -> None:
    """An SQLite database of the data folder, with the files that belong to it."""
    for end in ("", "-wal", "-shm"):
        path = data / f"{name}{end}"
        if path.exists():
            path.rename(data / f"{new_name}{end}")
