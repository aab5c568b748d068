"""The whole server as a user starts it: `intaglio serve` with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudflare import Cloudflare
from playwright.sync_api import Browser

from intaglio.model.bundled import bundled_model_path
from intaglio.model.config import ModelConfig
from intaglio.model.loader import read_config
from intaglio.model.weights import open_checkpoint
from intaglio.settings import DEFAULT_MODEL_ID, Settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.browser import launch_browser
from tests.helpers.kernels import CHOSEN_KERNELS
from tests.helpers.servers import LiveServer, serve

ANSWER_DEADLINE_S = 60.0
MODEL = DEFAULT_MODEL_ID
ACCOUNT = "/client/v4/accounts/acc0"
RUN = f"{ACCOUNT}/ai/run/{MODEL}"


FOLDER = Path(__file__).parent
TINY = (
    "test_own_base.py",
    "test_packed_weights.py",
    "test_hub_model.py",
    "test_fields.py",
    "test_other_systems.py",
)  # they serve a model of some thousand weights
SLOW_KERNELS = ("plain", "reference")


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a server with the bundled model are slow: they took a quarter of the default suite's time. With
    kernels that take a second and more for a token of that model, they are skipped.
    """
    reason = f"the bundled model is too slow with --kernels {CHOSEN_KERNELS}"
    for item in items:
        marked = item.get_closest_marker("slow") is not None
        if item.path.parent == FOLDER and item.path.name not in TINY and not marked:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.bundled_model)
        if CHOSEN_KERNELS in SLOW_KERNELS and item.path.parent == FOLDER and item.path.name not in TINY:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests of this folder: starting it takes longer than most of them."""
    with serve(["--max-body-bytes", "1000000"], tmp_path_factory.mktemp("data")) as server:
        yield server
        assert "Traceback" not in server.log.text, server.log.text


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launch_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def http(live_server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=live_server.url, timeout=ANSWER_DEADLINE_S) as client:
        yield client


@pytest.fixture(scope="session")
def cloudflare(live_server: LiveServer) -> Iterator[Cloudflare]:
    with Cloudflare(api_token="any", base_url=f"{live_server.url}/client/v4", max_retries=0) as client:
        yield client


@pytest.fixture(scope="session")
def base_config() -> ModelConfig:
    """The shape of the bundled model."""
    with open_checkpoint(bundled_model_path(Settings().cache_path)) as checkpoint:
        return read_config(checkpoint)


@pytest.fixture(scope="session")
def adapter_folders(base_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters of different rank and targets that clearly change the bundled model's completions."""
    folder = tmp_path_factory.mktemp("adapters")
    return [
        write_peft_adapter(folder / "one", base_config, rank=4, seed=1, dtype="bfloat16", model_type="gemma"),
        write_peft_adapter(folder / "two", base_config, rank=3, seed=2, targets=["q_proj", "down_proj"]),
    ]


def run_model(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """The result of a run that must succeed."""
    response = client.post(RUN, json=body)
    assert response.status_code == 200, response.text
    content: dict[str, Any] = response.json()["result"]
    return content
