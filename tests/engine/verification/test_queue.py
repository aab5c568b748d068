"""Verifications that the API process asks for while the engine process serves requests."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from intaglio.engine.client import EngineClient
from intaglio.errors import AdapterError, EngineDeadError
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from intaglio.model.loader import load_gemma
from intaglio.ops.reference import ReferenceOps
from intaglio.request import AdapterRef, FinishReason, Verification, VerifiedAdapter
from tests.engine.test_client import LONG, Act, collect, first, shared_client, with_client
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.engines import request, write_tiny_model


@pytest.fixture
def model_path(tmp_path: Path) -> Path:
    """For tests that change the packed adapters beside it, or end its engine."""
    return write_tiny_model(tmp_path / "model")


@pytest.fixture(scope="module")
def shared_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests whose adapters differ from each other's, since verifications are kept beside the model."""
    return write_tiny_model(tmp_path_factory.mktemp("shared") / "model")


@pytest.fixture(scope="module")
def with_shared_client(shared_path: Path) -> Iterator[Callable[[Act], None]]:
    with shared_client(shared_path) as run_with_client:
        yield run_with_client


@pytest.fixture(scope="module")
def config(shared_path: Path) -> ModelConfig:
    return load_gemma(shared_path, ReferenceOps(), "auto").config


def adapter(folder: Path, config: ModelConfig, seed: int = 0, **options: float) -> AdapterRef:
    write_peft_adapter(folder, config, seed=seed, **options)  # type: ignore[arg-type]
    return AdapterRef(read_peft_adapter(folder, config, AdapterLimits()).digest, str(folder))


async def verify(client: EngineClient, ref: AdapterRef) -> Verification:
    verified = await client.verify(ref.folder, ref.digest)
    assert verified.digest == ref.digest
    return verified.verification


async def never_read_again(client: EngineClient, ref: AdapterRef, model_path: Path) -> None:
    """From now on its verification never ends: its packed file is a pipe without a writer."""
    await verify(client, ref)
    (packed,) = model_path.with_suffix(".packed").rglob(f"{ref.digest[:32]}*")
    packed.unlink()
    os.mkfifo(packed)


def test_an_idle_engine_verifies_and_caches_the_result(
    with_shared_client: Callable[[Act], None], config: ModelConfig, tmp_path: Path
) -> None:
    ref = adapter(tmp_path / "a", config, seed=10)

    async def act(client: EngineClient) -> None:
        verification = await verify(client, ref)
        assert (verification.rank, verification.num_modules, verification.scalable) == (4, 49, True)
        assert verification.agreement > 0.9
        assert await verify(client, ref) == verification, "with the same duration: it was not run again"
        outputs = await collect(await client.submit(request("r", [2, 5], ref, ignore_stop_tokens=True)))
        assert outputs[-1].finish_reason is FinishReason.LENGTH

    with_shared_client(act)


def test_an_adapter_that_was_not_read_before_gets_its_digest_from_the_engine(
    with_shared_client: Callable[[Act], None], config: ModelConfig, tmp_path: Path
) -> None:
    ref = adapter(tmp_path / "a", config, seed=11)

    async def act(client: EngineClient) -> None:
        uploaded = await client.verify(ref.folder)
        assert uploaded.digest == ref.digest
        assert await client.verify(ref.folder) == uploaded, "with the same duration: it was read, and not run again"

    with_shared_client(act)


def test_several_verifications_go_on_beside_running_requests(
    with_shared_client: Callable[[Act], None], config: ModelConfig, tmp_path: Path
) -> None:
    refs = [adapter(tmp_path / str(seed), config, seed) for seed in range(20, 24)]

    async def act(client: EngineClient) -> None:
        streams = [await client.submit(request(name, [2, 5], **LONG)) for name in "ab"]
        for stream in streams:
            await first(stream)
        verifications = await asyncio.gather(*(verify(client, ref) for ref in refs))
        assert all(verification.agreement > 0.9 for verification in verifications)
        assert len({verification.largest_change for verification in verifications}) == 4
        for stream in streams:
            assert (await collect(stream))[-1].finish_reason is FinishReason.LENGTH

    with_shared_client(act)


def test_a_refusal_has_its_reason_and_the_next_adapter_is_verified(
    with_shared_client: Callable[[Act], None], config: ModelConfig, tmp_path: Path
) -> None:
    idle, changed = adapter(tmp_path / "idle", config, alpha=1e-30), AdapterRef("0" * 64, str(tmp_path / "idle"))
    good = adapter(tmp_path / "good", config, seed=12)

    async def act(client: EngineClient) -> None:
        refused = await asyncio.gather(
            verify(client, idle), verify(client, changed), verify(client, good), return_exceptions=True
        )
        assert [type(one).__name__ for one in refused] == ["AdapterError", "AdapterError", "Verification"]
        assert "changes nothing" in str(refused[0])
        assert "its files changed" in str(refused[1])
        output = (await collect(await client.submit(request("r", [2, 5], idle))))[-1]
        assert (output.finish_reason, output.token_id) == (FinishReason.ERROR, None)
        assert "changes nothing" in (output.error or ""), "a refused adapter is not served either"

    with_shared_client(act)


def test_verifications_that_wait_fail_when_the_engine_dies(
    model_path: Path, config: ModelConfig, tmp_path: Path
) -> None:
    stuck, good = adapter(tmp_path / "stuck", config, seed=99), adapter(tmp_path / "good", config)

    async def act(client: EngineClient) -> None:
        await never_read_again(client, stuck, model_path)
        waiting = asyncio.gather(verify(client, stuck), verify(client, good), return_exceptions=True)
        await collect(await client.submit(request("r", [2, 5])))  # the verifications were asked for before
        assert not waiting.done(), "one verification at a time"
        assert client.pid is not None
        os.kill(client.pid, signal.SIGKILL)
        for error in await waiting:
            assert isinstance(error, EngineDeadError)
            assert "status -9" in str(error)
        assert (await verify(client, good)).agreement > 0.9, "the next engine begins with an empty queue"

    with_client(model_path, act)


def test_closing_does_not_wait_for_a_verification(model_path: Path, config: ModelConfig, tmp_path: Path) -> None:
    stuck = adapter(tmp_path / "stuck", config, seed=99)

    async def act(client: EngineClient) -> None:
        await never_read_again(client, stuck, model_path)
        waiting = asyncio.gather(verify(client, stuck), return_exceptions=True)
        await collect(await client.submit(request("r", [2, 5])))
        began = time.monotonic()
        await client.close()
        assert time.monotonic() - began < 4, "it was told to end, and did not have to be killed"
        (error,) = await waiting
        assert isinstance(error, EngineDeadError)
        with pytest.raises(EngineDeadError, match="closed"):
            await verify(client, stuck)

    with_client(model_path, act)


def test_a_cancelled_verification_does_not_hold_up_others(
    with_shared_client: Callable[[Act], None], config: ModelConfig, tmp_path: Path
) -> None:
    good, other = adapter(tmp_path / "good", config, 13), adapter(tmp_path / "other", config, 14)

    async def act(client: EngineClient) -> None:
        given_up = asyncio.create_task(verify(client, good))
        await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert (await verify(client, other)).agreement > 0.9
        assert (await verify(client, good)).agreement > 0.9

    with_shared_client(act)


def test_a_failure_of_the_machine_is_not_reported_as_a_bad_adapter(
    model_path: Path, config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from intaglio.engine.verification.queue import VerificationQueue

    def failing(folder: str, _digest: str | None) -> VerifiedAdapter:
        if folder == "bad":
            raise AdapterError("bad")
        raise MemoryError("4 GB")

    finished: asyncio.Queue[None] = asyncio.Queue()

    async def backend() -> None:
        loop = asyncio.get_running_loop()
        verifications = VerificationQueue(
            failing, lambda: loop.call_soon_threadsafe(finished.put_nowait, None) and None
        )
        verifications.add("1", "bad", None)
        verifications.add("2", "good", "b" * 64)
        for _ in range(2):
            await asyncio.wait_for(finished.get(), 30)
        first, second = verifications.pop_results()
        assert (first.request_id, first.refused, first.failed) == ("1", "bad", None)
        assert (second.request_id, second.refused) == ("2", None)
        assert second.failed == "verification failed: MemoryError: 4 GB"
        verifications.close()

    asyncio.run(backend())
