"""The API process's client of the engine: submit a request, read its tokens, abort it; have an adapter verified.

What happens when an engine dies: `EngineClient._supervise` sees the process end, `_fail_all` ends every running request
and verification with an error at once, and a new process is started. Requests that arrive meanwhile wait for it. An
engine that keeps dying right after its start is not started again (`_give_up`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from intaglio.engine.protocol import (
    Abort,
    EngineSpec,
    Failed,
    FromEngine,
    Loading,
    Outputs,
    ReadStatus,
    Ready,
    Shutdown,
    StatusReport,
    Submit,
    ToEngine,
    VerificationResult,
    Verify,
)
from intaglio.engine.token_stream import TokenStream
from intaglio.errors import AdapterError, CapacityError, EngineDeadError, EngineError, EngineStepError
from intaglio.request import EngineRequest, FinishReason, Priority, TokenOutput, VerifiedAdapter
from intaglio.status import EngineStatus

logger = logging.getLogger(__name__)

OnLoading = Callable[[int, int], None]

_MAX_QUICK_DEATHS = 3  # in a row, each within _QUICK_DEATH_S of the start; then it is not started again
_QUICK_DEATH_S = 10.0
_STATUS_WAIT_S = 10.0
_RESTART_WAIT_S = 60.0  # how long a new request waits for an engine that is restarting


class EngineClient:
    """One engine process and the requests that run in it."""

    def __init__(self, spec: EngineSpec, max_in_flight: int, on_loading: OnLoading | None = None) -> None:
        self._spec = spec
        self.max_in_flight = max_in_flight
        self._on_loading = on_loading
        self._streams: dict[str, TokenStream] = {}
        self._verifications: dict[str, asyncio.Future[VerifiedAdapter]] = {}
        self._statuses: dict[str, asyncio.Future[EngineStatus]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="intaglio-"))
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._start_failure: str | None = None  # the reason that the process gave in `Failed`
        self._stopped: str | None = None  # why there is no engine and none will be started
        self._closing = False
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._supervisor: asyncio.Task[None] | None = None
        self.max_sequence_tokens = 0
        self.num_starts = 0

    @classmethod
    async def start(cls, spec: EngineSpec, *, max_in_flight: int, on_loading: OnLoading | None = None) -> EngineClient:
        """Start the process and wait until its model is loaded. Raises EngineError with the reason if it cannot.

        on_loading  called while weights are quantized, with the bytes done and the total
        """
        client = cls(spec, max_in_flight, on_loading)
        client._supervisor = asyncio.create_task(client._supervise(), name="engine-supervisor")
        try:
            await client._wait_until_ready(timeout_s=None)
            client._on_loading = None  # nothing shows the progress of a later start, after a crash
        except EngineDeadError:
            await client.close()
            raise
        return client

    @property
    def ready(self) -> bool:
        return self._ready.is_set() and self._stopped is None

    @property
    def num_in_flight(self) -> int:
        return len(self._streams)

    @property
    def num_interactive(self) -> int:
        """How many of the requests in flight are interactive."""
        return sum(stream.priority is Priority.INTERACTIVE for stream in self._streams.values())

    @property
    def pid(self) -> int | None:
        """The engine's process id, None while there is no process."""
        return self._process.pid if self._process and self._process.returncode is None else None

    # -- requests

    async def submit(self, request: EngineRequest, *, reject_if_busy: bool = False) -> TokenStream:
        """Send one request to the engine, as `submit_all` does."""
        (stream,) = await self.submit_all([request], reject_if_busy=reject_if_busy)
        return stream

    async def submit_all(self, requests: Sequence[EngineRequest], *, reject_if_busy: bool = False) -> list[TokenStream]:
        """Send requests of one priority to the engine, all of them or none.

        Raises CapacityError if too many are in flight, EngineDeadError without engine.

        reject_if_busy  refuse also requests that would have to wait for a running one to end

        Both limits count interactive requests only, because batch requests are preempted for them. Batch requests are
        always accepted here; the batch runner limits how many are in flight.
        """
        max_in_flight = self._spec.limits.max_running if reject_if_busy else self.max_in_flight
        self._check_capacity(requests, max_in_flight)
        await self._wait_until_ready(timeout_s=_RESTART_WAIT_S)
        self._check_capacity(requests, max_in_flight)
        streams = [TokenStream(request.request_id, request.priority, self.abort) for request in requests]
        self._streams |= {request.request_id: stream for request, stream in zip(requests, streams, strict=True)}
        try:
            await self._send(Submit(list(requests)))
        except Exception:
            for request in requests:  # it was not sent, so no output will end it
                self._streams.pop(request.request_id, None)
            raise
        return streams

    def _check_capacity(self, requests: Sequence[EngineRequest], max_in_flight: int) -> None:
        interactive = sum(request.priority is Priority.INTERACTIVE for request in requests)
        if interactive and self.num_interactive + interactive > max_in_flight:
            more = "this one" if interactive == 1 else f"these {interactive}"
            raise CapacityError(
                f"{self.num_interactive} requests are running or waiting; for {more} the limit is {max_in_flight}; "
                "try again shortly"
            )

    async def abort(self, request_id: str) -> None:
        if request_id in self._streams and self.ready:
            await self._send(Abort(request_id))

    async def verify(self, folder: str, digest: str | None = None) -> VerifiedAdapter:
        """Have the adapter in a folder read, checked and verified while requests run.

        digest  what the adapter must have, if that is known: then one that was verified before is not read again
        Raises AdapterError with the reason if it is refused, EngineError if verification could not be done.
        """
        await self._wait_until_ready(timeout_s=_RESTART_WAIT_S)
        request_id = uuid.uuid4().hex
        verified: asyncio.Future[VerifiedAdapter] = asyncio.get_running_loop().create_future()
        self._verifications[request_id] = verified
        try:
            await self._send(Verify(request_id, folder, digest))
            return await verified
        finally:
            del self._verifications[request_id]
            verified.cancel()  # its exception was raised above, if sending failed

    async def status(self) -> EngineStatus:
        """What the engine is doing. It answers between two steps.

        Raises EngineDeadError if there is no engine now, or it has not answered for a while.
        """
        if not self.ready:
            raise EngineDeadError(self._stopped or "the engine is being started")
        request_id = uuid.uuid4().hex
        status: asyncio.Future[EngineStatus] = asyncio.get_running_loop().create_future()
        self._statuses[request_id] = status
        try:
            await self._send(ReadStatus(request_id))
            return await asyncio.wait_for(status, _STATUS_WAIT_S)
        except TimeoutError as error:
            raise EngineDeadError(f"the engine has not said for {_STATUS_WAIT_S:.0f} s what it is doing") from error
        finally:
            del self._statuses[request_id]
            status.cancel()

    async def _wait_until_ready(self, timeout_s: float | None) -> None:
        if self._stopped is None and not self._ready.is_set():
            try:
                await asyncio.wait_for(self._ready.wait(), timeout_s)
            except TimeoutError as error:
                raise EngineDeadError(f"the engine did not restart within {timeout_s:.0f} s") from error
        if self._stopped is not None:
            raise EngineDeadError(self._stopped)

    async def _send(self, message: ToEngine) -> None:
        if self._socket is None:
            raise EngineDeadError("the engine is closed")
        data = self._encoder.encode(message)
        try:
            await self._socket.send(data)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The send was cancelled, not the caller: the socket was closed because the process ended.
            raise EngineDeadError("the engine process ended") from None

    # -- the process

    async def _supervise(self) -> None:
        """Start the engine process, and again whenever it dies, until closed or until it keeps dying right after
        its start.
        """
        quick_deaths = 0
        while not self._closing:
            started_at = time.monotonic()
            reason = await self._run_process()
            self._fail_all(reason)
            if self._closing:
                return
            quick_deaths = quick_deaths + 1 if time.monotonic() - started_at < _QUICK_DEATH_S else 0
            never_ready = self.max_sequence_tokens == 0
            if never_ready or quick_deaths >= _MAX_QUICK_DEATHS:
                self._give_up(reason)
                return
            logger.error("%s; starting it again", reason)

    async def _run_process(self) -> str:
        """Start the process and read its messages until it ends. Returns why it ended."""
        self.num_starts += 1
        endpoint = f"ipc://{self._folder}/engine-{self.num_starts}.sock"
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(endpoint)
        # In a session of its own: Ctrl-C in a terminal is for the server, which lets running requests end first.
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "intaglio.engine.core_process", endpoint),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(self._spec) + b"\n")
        reader = asyncio.create_task(self._read_messages(self._socket), name="engine-reader")
        exited = asyncio.create_task(self._process.wait(), name="engine-exit")
        try:
            await asyncio.wait({reader, exited}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():  # it failed, which is our bug; without a reader the engine is of no use
                self._process.kill()
                await exited
                return f"the engine's messages could not be read: {reader.exception()!r}"
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            while await self._socket.poll(50):  # ms: its last messages may still be on their way
                self._handle(await self._socket.recv())
            return self._start_failure or f"the engine process ended with status {exited.result()}"
        finally:
            self._ready.clear()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._socket.close()
            self._socket = None

    async def _read_messages(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            self._handle(await socket.recv())

    def _handle(self, data: bytes) -> None:
        match self._decoder.decode(data):
            case Loading(done, total):
                if self._on_loading is not None:
                    self._on_loading(done, total)
            case Ready(max_sequence_tokens):
                self.max_sequence_tokens = max_sequence_tokens
                self._start_failure = None
                self._ready.set()
            case Failed(reason):
                self._start_failure = reason
            case Outputs(outputs):
                for output in outputs:
                    self._deliver_output(output)
            case VerificationResult() as result:
                self._deliver_verification(result)
            case StatusReport(request_id, status):
                waiting = self._statuses.get(request_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(status)

    def _deliver_output(self, output: TokenOutput) -> None:
        stream = self._streams.get(output.request_id)
        if stream is None:
            return  # it ended with an error when an earlier engine died
        if output.finish_reason is not None:
            del self._streams[output.request_id]
        stream.put(output)

    def _deliver_verification(self, result: VerificationResult) -> None:
        waiting = self._verifications.get(result.request_id)
        if waiting is None or waiting.done():
            return  # the caller went away, or got an error when an earlier engine died
        if result.verified is not None:
            waiting.set_result(result.verified)
        elif result.refused is not None:
            waiting.set_exception(AdapterError(result.refused))
        else:
            waiting.set_exception(EngineStepError(result.failed or "verification failed"))

    def _fail_all(self, reason: str) -> None:
        """The engine process is gone: end every running request and verification with an error."""
        for waiting in self._verifications.values():
            if not waiting.done():
                waiting.set_exception(EngineDeadError(reason))
        for asked in self._statuses.values():
            if not asked.done():
                asked.set_exception(EngineDeadError(reason))
        for request_id in list(self._streams):
            self._deliver_output(TokenOutput(request_id, None, FinishReason.ERROR, 0, reason))

    def _give_up(self, reason: str) -> None:
        logger.error("%s; it will not be started again", reason)
        self._refuse_requests(reason)

    def _refuse_requests(self, reason: str) -> None:
        """Refuse every request from now on, for this reason."""
        self._stopped = self._stopped or reason
        self._ready.set()  # wakes waiting requests, which then read _stopped

    async def close(self) -> None:
        """Stop the process. Running requests end with an error output."""
        if self._closing:
            return
        self._closing = True
        self._refuse_requests("the engine is closed")
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(zmq.ZMQError, EngineError):
                await self._send(Shutdown())
            try:
                await asyncio.wait_for(self._process.wait(), timeout=5)
            except TimeoutError:
                self._process.kill()
        if self._supervisor is not None:
            await self._supervisor
        self._context.term()
        shutil.rmtree(self._folder, ignore_errors=True)
