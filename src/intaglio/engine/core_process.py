"""The engine process: `python -m intaglio.engine.core_process ENDPOINT`, with an EngineSpec as JSON on standard input.

One loop (`serve`): receive messages, run a step, send its outputs. It waits only when there is nothing to do. When this
process ends, `EngineClient._supervise` (client.py) fails its requests and starts another one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from socket import socketpair
from typing import NamedTuple

import msgspec
import zmq

from intaglio.engine.adapter_loader import AdapterLoader, serving_identity
from intaglio.engine.engine import Engine
from intaglio.engine.grammar import GrammarCompiler
from intaglio.engine.memory.open_files import raise_open_file_limit
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
    Verify,
)
from intaglio.engine.verification.queue import VerificationQueue
from intaglio.engine.verification.verifier import Verifier
from intaglio.errors import IntaglioError
from intaglio.lora.cache import PackedAdapters
from intaglio.lora.peft.base_tables import checkpoint_tables
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.lora.pool import AdapterPool
from intaglio.model.loader import LoadProgress, load_gemma
from intaglio.ops import Ops
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Kernels

logger = logging.getLogger(__name__)

_LOADING_EVERY_S = 0.25


class ServedModel(NamedTuple):
    """An engine, and the loader of its adapters."""

    engine: Engine
    adapters: AdapterLoader


def build_engine(spec: EngineSpec, progress: LoadProgress = lambda done, total: None) -> ServedModel:
    """Load the model and make the engine that serves it. progress: see `load_gemma`.

    Raises ModelFormatError or SettingsError.
    """
    ops = make_ops(spec.kernels, spec.threads)
    packed_dir = Path(spec.packed_dir)
    model = load_gemma(Path(spec.model_path), ops, spec.format, packed_dir=packed_dir, progress=progress)
    if spec.context_window is not None:
        window = min(spec.context_window, model.config.context_length)
        model.config = replace(model.config, context_length=window)
    packed = packed_adapters(spec, ops)
    packed.sweep()
    verifier = Verifier(model, ops, spec.limits.kv_block_size, spec.adapter_dtype)
    tables = checkpoint_tables(Path(spec.model_path))
    loader = AdapterLoader(model, ops, adapter_limits(spec), packed, verifier.verify, tables)
    engine = Engine(
        model,
        AdapterPool(spec.adapter_cache_bytes, loader.load),
        ops,
        spec.limits,
        stop_ids=frozenset(spec.stop_ids),
        vocab_size=spec.vocab_size,
        grammar_compiler=GrammarCompiler(Path(spec.token_table) if spec.token_table else None, spec.stop_ids),
    )
    return ServedModel(engine, loader)


def make_ops(kernels: Kernels, threads: int | None) -> Ops:
    """The backend of the array operations that the settings ask for."""
    if kernels == "reference":
        return ReferenceOps()
    from intaglio.ops.cpu import CpuOps  # only here is the extension module needed

    ops = CpuOps(threads, None if kernels == "auto" else kernels)
    logger.info("CPU kernels: %s on %d threads", ops.instruction_set, ops.threads)
    return ops


def adapter_limits(spec: EngineSpec) -> AdapterLimits:
    return AdapterLimits(
        max_rank=spec.max_adapter_rank,
        max_file_bytes=spec.max_adapter_file_bytes,
        max_memory_bytes=spec.adapter_cache_bytes,
    )


def packed_adapters(spec: EngineSpec, ops: Ops) -> PackedAdapters:
    """The store of adapters that were verified on this model with these kernels, packed for them."""
    identity = serving_identity(Path(spec.model_path), spec.format, ops)
    return PackedAdapters(Path(spec.packed_dir) / "adapters", spec.adapter_dtype, identity)


class EngineSocket:
    """The engine's end of the socket. One thread sends and receives; any thread may wake it."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 1000)  # ms, so that a last Failed message is sent
        self._socket.connect(endpoint)
        self._wake_receiver, self._wake_sender = socketpair()
        for end in (self._wake_receiver, self._wake_sender):
            end.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_receiver, zmq.POLLIN)
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: FromEngine) -> None:
        self._socket.send(self._encoder.encode(message))

    def receive(self, *, wait: bool) -> list[ToEngine]:
        """Every message that has arrived. With `wait` it waits for one, or until `wake` is called."""
        messages: list[ToEngine] = []
        if wait and self._wake_receiver.fileno() in dict(self._poller.poll()):  # it lists other sockets by file number
            self._drain_wakes()
        while self._socket.poll(0):
            messages.append(self._decoder.decode(self._socket.recv()))
        return messages

    def wake(self) -> None:
        """End a waiting `receive`, or the next one."""
        with contextlib.suppress(BlockingIOError):  # the buffer is full, so `receive` wakes anyway
            self._wake_sender.send(b"!")

    def _drain_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_receiver.recv(4096):
                pass

    def close(self) -> None:
        self._socket.close()
        self._wake_receiver.close()
        self._wake_sender.close()


def serve(engine: Engine, verifications: VerificationQueue, socket: EngineSocket) -> None:
    """Run until told to shut down."""
    while True:
        for verified in verifications.pop_results():
            socket.send(verified)
        outputs = []
        messages = socket.receive(wait=False)
        if not messages and not engine.has_work:
            engine.preallocate_adapter_memory()
            messages = socket.receive(wait=True)
        for message in messages:
            match message:
                case Submit(requests):
                    for request in requests:
                        engine.add(request)
                case Abort(request_id):
                    outputs.extend(engine.abort(request_id))
                case Verify(request_id, folder, digest):
                    verifications.add(request_id, folder, digest)
                case ReadStatus(request_id):
                    socket.send(StatusReport(request_id, engine.status()))
                case Shutdown():
                    return
        outputs.extend(engine.step())
        if outputs:
            socket.send(Outputs(outputs))


def _loading_messages(socket: EngineSocket) -> LoadProgress:
    """Sends Loading, a few times a second at most."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOADING_EVERY_S or done == total:
            last = now
            socket.send(Loading(done, total))

    return report


def _end_with_parent(stdin_fd: int) -> None:
    """End this process when standard input closes, which happens whenever the API process dies."""

    def wait() -> None:
        while os.read(stdin_fd, 4096):
            pass
        os._exit(0)  # the main thread may be inside a long forward

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def main() -> None:
    # It ends on the server's Shutdown message, or when the server is gone. A service manager sends SIGTERM to every
    # process of a service, and the server still has to finish running requests then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    (endpoint,) = sys.argv[1:]
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineSpec)
    logging.basicConfig(level=spec.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    _end_with_parent(sys.stdin.fileno())
    raise_open_file_limit(spec.adapter_cache_bytes)
    socket = EngineSocket(endpoint)
    try:
        engine, adapters = build_engine(spec, _loading_messages(socket))
    except (IntaglioError, OSError, MemoryError) as error:
        socket.send(Failed(f"{type(error).__name__}: {error}"))
        socket.close()
        sys.exit(1)
    socket.send(Ready(engine.max_sequence_tokens))
    verifications = VerificationQueue(adapters.verify, socket.wake)
    serve(engine, verifications, socket)
    logging.shutdown()
    # An ordinary exit would wait for threads: for adapters on a slow disk, and for a verification whose result is not
    # needed any more. Nothing is lost: files are written to a temporary name and renamed.
    os._exit(0)


if __name__ == "__main__":
    main()
