"""The engine process: `python -m intaglio.engine.core_process ENDPOINT`, with an EngineSpec as JSON on standard input.

One loop: take what has come in, run a step, send what came out. It waits only when there is nothing to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from socket import socketpair
from typing import NamedTuple

import msgspec
import zmq

from intaglio.engine.adapter_loader import AdapterLoader, served_by
from intaglio.engine.engine import Engine
from intaglio.engine.grammar import Matchers
from intaglio.engine.memory.open_files import allow_open_files
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
    Verify,
)
from intaglio.engine.verification.queue import VerificationQueue
from intaglio.engine.verification.verifier import Verifier
from intaglio.errors import IntaglioError
from intaglio.lora.cache import PackedAdapters
from intaglio.lora.peft.base_tables import checkpoint_tables
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.lora.pool import AdapterPool
from intaglio.model.loader import load_gemma
from intaglio.ops import Ops
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Kernels

logger = logging.getLogger(__name__)


class ServedModel(NamedTuple):
    """An engine, and the loader that its adapters come from."""

    engine: Engine
    adapters: AdapterLoader


def build_engine(spec: EngineSpec) -> ServedModel:
    """Load the model and make the engine that serves it. Raises ModelFormatError or SettingsError."""
    ops = make_ops(spec.kernels, spec.threads)
    model = load_gemma(Path(spec.model_path), ops, spec.format, packed_dir=Path(spec.packed_dir))
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
        matchers=Matchers(Path(spec.token_table) if spec.token_table else None, spec.stop_ids),
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
    """Where adapters that were verified on this engine are kept in its own form."""
    served = served_by(Path(spec.model_path), spec.format, ops)
    return PackedAdapters(Path(spec.packed_dir) / "adapters", spec.adapter_dtype, served)


class _Channel:
    """The engine's end of the socket. One thread sends and receives; any may wake it."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 1000)  # ms: a last Failed message still leaves
        self._socket.connect(endpoint)
        self._bell, self._ringer = socketpair()
        for end in (self._bell, self._ringer):
            end.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._bell, zmq.POLLIN)
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: FromEngine) -> None:
        self._socket.send(self._encoder.encode(message))

    def receive(self, *, wait: bool) -> list[ToEngine]:
        """Every message that is there. With `wait`, there is one, or somebody rang."""
        messages: list[ToEngine] = []
        if wait and self._bell.fileno() in dict(self._poller.poll()):  # it names all but its own kind by number
            self._hear_bell()
        while self._socket.poll(0):
            messages.append(self._decoder.decode(self._socket.recv()))
        return messages

    def ring(self) -> None:
        """End a waiting `receive`, or the next one."""
        with contextlib.suppress(BlockingIOError):  # it rings already
            self._ringer.send(b"!")

    def _hear_bell(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass

    def close(self) -> None:
        self._socket.close()
        self._bell.close()
        self._ringer.close()


def serve(engine: Engine, verifications: VerificationQueue, channel: _Channel) -> None:
    """Run until told to shut down."""
    while True:
        for verified in verifications.take():
            channel.send(verified)
        outputs = []
        messages = channel.receive(wait=False)
        if not messages and not engine.has_work:
            engine.rest()
            messages = channel.receive(wait=True)
        for message in messages:
            match message:
                case Submit(request):
                    engine.add(request)
                case Abort(request_id):
                    outputs.extend(engine.abort(request_id))
                case Verify(request_id, ref):
                    verifications.add(request_id, ref)
                case Shutdown():
                    return
        outputs.extend(engine.step())
        if outputs:
            channel.send(Outputs(outputs))


def _end_with_parent(stdin_fd: int) -> None:
    """End this process when standard input closes, which happens when the API process dies, however it dies."""

    def wait() -> None:
        while os.read(stdin_fd, 4096):
            pass
        os._exit(0)  # the main thread may be inside a long forward

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def main() -> None:
    # It ends when the server tells it to or is gone. A service manager sends SIGTERM to every process of a service, and
    # the server still has to finish running requests then.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    (endpoint,) = sys.argv[1:]
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineSpec)
    logging.basicConfig(level=spec.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    _end_with_parent(sys.stdin.fileno())
    allow_open_files(spec.adapter_cache_bytes)
    channel = _Channel(endpoint)
    try:
        engine, adapters = build_engine(spec)
    except (IntaglioError, OSError, MemoryError) as error:
        channel.send(Failed(f"{type(error).__name__}: {error}"))
        channel.close()
        sys.exit(1)
    channel.send(Ready(engine.max_sequence_tokens))
    verifications = VerificationQueue(adapters.verify, channel.ring)
    serve(engine, verifications, channel)
    logging.shutdown()
    # Not the ordinary way out, which waits for threads: for adapters on a slow disk, and for a verification that nobody
    # awaits any more. Nothing is lost: files are written aside and renamed.
    os._exit(0)


if __name__ == "__main__":
    main()
