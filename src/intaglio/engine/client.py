"""The API process's view of the engine: submit a request, read its tokens, abort it; have an adapter verified. Keeps
the engine process alive.

When the process ends without being asked to, every running request and verification gets an error at once, and a new
process is started; requests that come in meanwhile wait for it.
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
from pathlib import Path

import msgspec
import zmq
import zmq.asyncio

from intaglio.engine.protocol import (
    Abort,
    EngineSpec,
    Failed,
    FromEngine,
    Outputs,
    Ready,
    Shutdown,
    Submit,
    ToEngine,
    Verified,
    Verify,
)
from intaglio.engine.token_stream import TokenStream
from intaglio.errors import AdapterError, CapacityError, EngineDeadError, EngineError, EngineStepError
from intaglio.request import AdapterRef, EngineRequest, FinishReason, Priority, TokenOutput, Verification

logger = logging.getLogger(__name__)

_MAX_QUICK_DEATHS = 3  # deaths in a row, each soon after the start, before we stop trying
_QUICK_S = 10.0
_RESTART_WAIT_S = 60.0  # how long a new request waits for an engine that is restarting


class EngineClient:
    """One engine process and the requests that run in it."""

    def __init__(self, spec: EngineSpec, max_in_flight: int) -> None:
        self._spec = spec
        self._max_in_flight = max_in_flight
        self._streams: dict[str, TokenStream] = {}
        self._verifications: dict[str, asyncio.Future[Verification]] = {}
        self._folder = Path(tempfile.mkdtemp(prefix="intaglio-"))
        self._context = zmq.asyncio.Context()
        self._socket: zmq.asyncio.Socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()
        self._last_words: str | None = None  # why the process said it cannot start
        self._given_up: str | None = None  # why no engine will come any more
        self._closing = False
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(FromEngine)
        self._supervisor: asyncio.Task[None] | None = None
        self.max_sequence_tokens = 0
        self.num_starts = 0

    @classmethod
    async def start(cls, spec: EngineSpec, *, max_in_flight: int) -> EngineClient:
        """Start the process and wait until its model is loaded. Raises EngineError with the reason if it cannot."""
        client = cls(spec, max_in_flight)
        client._supervisor = asyncio.create_task(client._supervise(), name="engine-supervisor")
        try:
            await client._wait_until_ready(timeout_s=None)
        except EngineDeadError:
            await client.close()
            raise
        return client

    @property
    def ready(self) -> bool:
        return self._ready.is_set() and self._given_up is None

    @property
    def num_in_flight(self) -> int:
        return len(self._streams)

    @property
    def num_interactive(self) -> int:
        """Of the requests in flight those that somebody waits for."""
        return sum(stream.priority is Priority.INTERACTIVE for stream in self._streams.values())

    @property
    def pid(self) -> int | None:
        """The engine's process id, None while there is no process."""
        return self._process.pid if self._process and self._process.returncode is None else None

    # -- requests

    async def submit(self, request: EngineRequest, *, reject_if_busy: bool = False) -> TokenStream:
        """Hand a request over. Raises CapacityError if there are too many, EngineDeadError if no engine comes.

        reject_if_busy  refuse also what would have to wait for a running one to end

        Both count interactive requests alone: batch ones give way to them. How many batch requests are in flight is
        for those who send them to bound (the batch runner does); here they are always taken.
        """
        max_in_flight = self._spec.limits.max_running if reject_if_busy else self._max_in_flight
        self._check_room(request.priority, max_in_flight)
        await self._wait_until_ready(timeout_s=_RESTART_WAIT_S)
        self._check_room(request.priority, max_in_flight)
        stream = TokenStream(request.request_id, request.priority, self.abort)
        self._streams[request.request_id] = stream
        try:
            await self._send(Submit(request))
        except Exception:
            self._streams.pop(request.request_id, None)  # it never left, so no output will end it
            raise
        return stream

    def _check_room(self, priority: Priority, max_in_flight: int) -> None:
        if priority is Priority.INTERACTIVE and self.num_interactive >= max_in_flight:
            raise CapacityError(
                f"{self.num_interactive} requests are running or waiting, and {max_in_flight} are the most that this "
                "one may find; try again shortly"
            )

    async def abort(self, request_id: str) -> None:
        if request_id in self._streams and self.ready:
            await self._send(Abort(request_id))

    async def verify(self, ref: AdapterRef) -> Verification:
        """Have an adapter checked and run on a short text, beside whatever runs.

        Raises AdapterError with the reason if it is refused, EngineError if the engine cannot tell.
        """
        await self._wait_until_ready(timeout_s=_RESTART_WAIT_S)
        request_id = uuid.uuid4().hex
        verification: asyncio.Future[Verification] = asyncio.get_running_loop().create_future()
        self._verifications[request_id] = verification
        try:
            await self._send(Verify(request_id, ref))
            return await verification
        finally:
            del self._verifications[request_id]
            verification.cancel()  # one that failed while it was sent has nobody else to tell

    async def _wait_until_ready(self, timeout_s: float | None) -> None:
        if self._given_up is None and not self._ready.is_set():
            try:
                await asyncio.wait_for(self._ready.wait(), timeout_s)
            except TimeoutError as error:
                raise EngineDeadError(f"the engine did not come back within {timeout_s:.0f} s") from error
        if self._given_up is not None:
            raise EngineDeadError(self._given_up)

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
            # Not the caller was cancelled but the sending: the socket was closed, because the process ended.
            raise EngineDeadError("the engine process ended") from None

    # -- the process

    async def _supervise(self) -> None:
        """Start the process again whenever it ends, until closed or until it keeps dying at once."""
        quick_deaths = 0
        while not self._closing:
            started_at = time.monotonic()
            reason = await self._run_once()
            self._fail_all(reason)
            if self._closing:
                return
            quick_deaths = quick_deaths + 1 if time.monotonic() - started_at < _QUICK_S else 0
            never_ready = self.max_sequence_tokens == 0
            if never_ready or quick_deaths >= _MAX_QUICK_DEATHS:
                self._give_up(reason)
                return
            logger.error("%s; starting it again", reason)

    async def _run_once(self) -> str:
        """One life of the process. Returns why it ended."""
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
        reader = asyncio.create_task(self._read(self._socket), name="engine-reader")
        exited = asyncio.create_task(self._process.wait(), name="engine-exit")
        try:
            await asyncio.wait({reader, exited}, return_when=asyncio.FIRST_COMPLETED)
            if reader.done():  # it only ends by an error of ours: an engine that nobody hears is of no use
                self._process.kill()
                await exited
                return f"the engine's answers could not be read: {reader.exception()!r}"
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            while await self._socket.poll(50):  # ms: what the engine said last may still be on its way
                self._handle(await self._socket.recv())
            return self._last_words or f"the engine process ended with status {exited.result()}"
        finally:
            self._ready.clear()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            self._socket.close()
            self._socket = None

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            self._handle(await socket.recv())

    def _handle(self, data: bytes) -> None:
        match self._decoder.decode(data):
            case Ready(max_sequence_tokens):
                self.max_sequence_tokens = max_sequence_tokens
                self._last_words = None
                self._ready.set()
            case Failed(reason):
                self._last_words = reason
            case Outputs(outputs):
                for output in outputs:
                    self._deliver(output)
            case Verified(request_id, verification, refused, failed):
                self._settle(request_id, verification, refused, failed)

    def _deliver(self, output: TokenOutput) -> None:
        stream = self._streams.get(output.request_id)
        if stream is None:
            return  # it was failed when an earlier engine died
        if output.finish_reason is not None:
            del self._streams[output.request_id]
        stream.put(output)

    def _settle(
        self, request_id: str, verification: Verification | None, refused: str | None, failed: str | None
    ) -> None:
        waiting = self._verifications.get(request_id)
        if waiting is None or waiting.done():
            return  # who asked went away, or was told when an earlier engine died
        if verification is not None:
            waiting.set_result(verification)
        elif refused is not None:
            waiting.set_exception(AdapterError(refused))
        else:
            waiting.set_exception(EngineStepError(failed or "the engine could not tell"))

    def _fail_all(self, reason: str) -> None:
        for waiting in self._verifications.values():
            if not waiting.done():
                waiting.set_exception(EngineDeadError(reason))
        for request_id in list(self._streams):
            self._deliver(TokenOutput(request_id, None, FinishReason.ERROR, 0, reason))

    def _give_up(self, reason: str) -> None:
        logger.error("%s; it will not be started again", reason)
        self._refuse_from_now_on(reason)

    def _refuse_from_now_on(self, reason: str) -> None:
        self._given_up = self._given_up or reason
        self._ready.set()  # wakes those who wait; they find _given_up

    async def close(self) -> None:
        """Stop the process. Running requests end with an error output."""
        if self._closing:
            return
        self._closing = True
        self._refuse_from_now_on("the engine is closed")
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
