"""Verifications of demo adapters, which the database does not keep."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import pytest
from fastapi.testclient import TestClient

from intaglio.api import background_verification
from intaglio.api.app import create_app
from intaglio.api.background_verification import MAX_PENDING, BackgroundVerification
from intaglio.api.startup import open_batches, open_responses
from intaglio.api.state import ServerState
from intaglio.errors import AdapterError, EngineDeadError
from intaglio.finetunes import Finetune, FinetuneStore
from intaglio.finetunes.demos import read_demo_adapters
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import MODEL, RUN
from tests.api.finetunes.calls import FINETUNES, create, read, upload_both
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.fakes import FakeLLM
from tests.helpers.openapi_conformance import Declared, DeclaredResponses
from tests.helpers.paused_check import DEADLINE_S


class MakeDemos(Protocol):
    def __call__(self, count: int) -> list[Finetune]: ...


@pytest.fixture
def make_demos(base_config: ModelConfig, tmp_path: Path) -> MakeDemos:
    """Demo adapters of the fake base, as a package has them."""

    def make(count: int) -> list[Finetune]:
        for number in range(count):
            folder = write_peft_adapter(
                tmp_path / "demos" / str(number), base_config, targets=["q_proj"], seed=number, model_type="gemma"
            )
            card = {"name": f"intaglio-{number}", "description": "shown", "example_prompt": "Hello"}
            (folder / "card.json").write_text(json.dumps(card))
        return read_demo_adapters(tmp_path / "demos", MODEL, base_config, AdapterLimits())

    return make


@pytest.fixture
def state(settings: Settings, base_config: ModelConfig, make_demos: MakeDemos) -> ServerState:
    store = FinetuneStore(settings.data_path, AdapterLimits(), settings.max_finetunes, make_demos(2))
    models = {MODEL: FakeLLM(MODEL, base_config)}
    return ServerState(settings, models, store, open_batches(settings), open_responses(settings))  # type: ignore[arg-type]


def test_a_demo_adapter_is_read_with_its_verification_and_listed_as_verified(client: TestClient) -> None:
    found = read(client, "intaglio-0")
    assert (found["verified"], found["verification"]["verdict"], found["verification"]["rank"]) == (True, "verified", 4)
    assert read(client, found["id"]) == found
    read(client, "intaglio-1")
    listed = client.get(f"{FINETUNES}/public").json()["result"]
    assert [(one["name"], one["verified"]) for one in listed] == [("intaglio-0", True), ("intaglio-1", True)]


def test_demo_adapters_are_verified_from_the_start_without_a_request(
    state: ServerState, llm: FakeLLM, declared: Declared
) -> None:
    llm.verification_may_end.clear()
    with TestClient(DeclaredResponses(create_app(state), declared)) as client:
        assert llm.verification_begun.wait(DEADLINE_S)
        listed = client.get(f"{FINETUNES}/public").json()["result"]
        assert [one["verified"] for one in listed] == [False, False]
        llm.verification_may_end.set()


@pytest.fixture
def unverified(llm: FakeLLM) -> str:
    """A demo adapter that is not verified at the start, since the engine is not ready. Comes before `client`."""
    llm.ready = False
    return "intaglio-0"


def test_a_read_waits_no_longer_than_the_bound_and_delays_no_other_request(
    unverified: str, client: TestClient, llm: FakeLLM, adapter_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_verification, "MAX_WAIT_S", 0.01)
    llm.ready = True
    llm.verification_may_end.clear()
    try:
        found = read(client, unverified)
        assert (found["state"], found["verified"], found["verification"]) == ("ready", False, None)
        assert llm.verification_begun.wait(DEADLINE_S)
        assert client.post(RUN, json={"prompt": "x", "lora": unverified}).status_code == 200
        create(client, "other")
    finally:
        llm.verification_may_end.set()
    upload_both(client, adapter_folder, "other")
    assert_verification_comes(client, unverified)


def assert_verification_comes(client: TestClient, name: str) -> None:
    """It is on its way: each read waits a moment for it."""
    deadline = time.monotonic() + DEADLINE_S
    while read(client, name)["verification"] is None:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("error", [EngineDeadError("the engine process ended"), AdapterError("it changes nothing")])
def test_without_a_verdict_or_with_a_refusal_the_demo_is_shown_without_verification(
    unverified: str, client: TestClient, llm: FakeLLM, error: Any
) -> None:
    llm.ready = True
    llm.verification_error = error
    found = read(client, unverified)
    assert (found["state"], found["verified"], found["verification"]) == ("ready", False, None)
    llm.verification_error = None
    assert (read(client, unverified)["verification"] is not None) == isinstance(error, EngineDeadError), (
        "a refusal is remembered"
    )


def test_a_read_does_not_wait_for_a_restarting_engine(unverified: str, client: TestClient, llm: FakeLLM) -> None:
    assert read(client, unverified)["verification"] is None
    assert not llm.verification_begun.is_set()
    llm.ready = True
    assert read(client, unverified)["verification"] is not None


def run(act: Callable[[BackgroundVerification], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        verifications = BackgroundVerification()
        await act(verifications)
        await verifications.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


def test_demos_are_verified_once_each_one_at_a_time_and_a_bounded_number_wait(
    base_config: ModelConfig, make_demos: MakeDemos
) -> None:
    demos = make_demos(MAX_PENDING + 1)
    llm = FakeLLM(MODEL, base_config)
    asked: list[str] = []
    under_way = most = 0
    verify = llm.verify

    async def counted(folder: str, digest: str) -> Any:
        nonlocal under_way, most
        asked.append(digest)
        under_way += 1
        most = max(most, under_way)
        try:
            return await verify(folder, digest)
        finally:
            under_way -= 1

    llm.verify = counted  # type: ignore[method-assign]

    async def all_at_once(verifications: BackgroundVerification) -> None:
        shown = await asyncio.gather(*(verifications.with_verification(demo, llm) for demo in demos for _ in range(3)))  # type: ignore[arg-type]
        digests = [demo.digest for demo in demos[:MAX_PENDING]]
        assert (sorted(asked), most) == (sorted(digests), 1)  # type: ignore[type-var]
        verified = {one.digest for one in shown if one.current is not None and one.current.verification is not None}
        assert verified == set(digests)

    run(all_at_once)


def test_shutdown_does_not_wait_for_a_verification(base_config: ModelConfig, make_demos: MakeDemos) -> None:
    demos = make_demos(2)
    llm = FakeLLM(MODEL, base_config)
    cancelled = asyncio.Event()

    async def endless(_folder: str, _digest: str) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    llm.verify = endless  # type: ignore[method-assign]

    async def begin(verifications: BackgroundVerification) -> None:
        verifications.begin(demos, llm)  # type: ignore[arg-type]
        await asyncio.sleep(0)

    run(begin)
    assert cancelled.is_set()


def test_a_finetune_of_a_base_that_is_not_served_has_none(make_demos: MakeDemos) -> None:
    (demo,) = make_demos(1)

    async def read_it(verifications: BackgroundVerification) -> None:
        assert await verifications.with_verification(demo, None) == demo

    run(read_it)
