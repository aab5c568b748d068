"""The engine process: `python -m intaglio.engine.worker ENDPOINT`, with an EngineSpec as JSON on standard input.

One loop: take what has come in, run a step, send what came out. It waits only when there is nothing to do.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import msgspec
import zmq

from intaglio.engine.adapter_loader import AdapterLoader
from intaglio.engine.engine import Engine
from intaglio.engine.grammar import Matchers
from intaglio.engine.messages import (
    Abort,
    EngineSpec,
    Failed,
    FromEngine,
    Outputs,
    Ready,
    Shutdown,
    Submit,
    ToEngine,
)
from intaglio.errors import IntaglioError
from intaglio.lora.packed import PackedAdapters
from intaglio.lora.peft import AdapterLimits
from intaglio.lora.pool import AdapterPool
from intaglio.model.loader import load_gemma
from intaglio.ops import Ops
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Kernels

logger = logging.getLogger(__name__)


def build_engine(spec: EngineSpec) -> Engine:
    """Load the model and make the engine that serves it. Raises ModelFormatError or SettingsError."""
    ops = make_ops(spec.kernels, spec.threads)
    model = load_gemma(Path(spec.model_path), ops, spec.format, packed_dir=Path(spec.packed_dir))
    if spec.context_window is not None:
        window = min(spec.context_window, model.config.context_length)
        model.config = replace(model.config, context_length=window)
    packed = packed_adapters(spec)
    packed.sweep()
    return Engine(
        model,
        AdapterPool(spec.adapter_cache_bytes, AdapterLoader(model, adapter_limits(spec), packed).load),
        ops,
        spec.limits,
        stop_ids=frozenset(spec.stop_ids),
        vocab_size=spec.vocab_size,
        matchers=Matchers(Path(spec.token_table) if spec.token_table else None, spec.stop_ids),
    )


def make_ops(kernels: Kernels, threads: int | None) -> Ops:
    """The body of the array operations that the settings ask for."""
    if kernels == "reference":
        return ReferenceOps()
    from intaglio.ops.cpu import CpuOps  # only here is the extension module needed

    ops = CpuOps(threads, None if kernels == "auto" else kernels)
    logger.info("CPU kernels: %s on %d threads", ops.instruction_set, ops.threads)
    return ops


def adapter_limits(spec: EngineSpec) -> AdapterLimits:
    return AdapterLimits(max_rank=spec.max_adapter_rank, max_file_bytes=spec.max_adapter_file_bytes)


def packed_adapters(spec: EngineSpec) -> PackedAdapters:
    """Where adapters that were checked for this engine are kept in its own form."""
    return PackedAdapters(Path(spec.packed_dir) / "adapters", spec.adapter_dtype)


class _Channel:
    """The engine's end of the socket."""

    def __init__(self, endpoint: str) -> None:
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
        self._socket.setsockopt(zmq.LINGER, 1000)  # ms: a last Failed message still leaves
        self._socket.connect(endpoint)
        self._decoder = msgspec.msgpack.Decoder(ToEngine)
        self._encoder = msgspec.msgpack.Encoder()

    def send(self, message: FromEngine) -> None:
        self._socket.send(self._encoder.encode(message))

    def receive(self, *, wait: bool) -> list[ToEngine]:
        """Every message that is there; with `wait`, at least one."""
        messages: list[ToEngine] = []
        if wait:
            messages.append(self._decoder.decode(self._socket.recv()))
        while self._socket.poll(0):
            messages.append(self._decoder.decode(self._socket.recv()))
        return messages

    def close(self) -> None:
        self._socket.close()


def serve(engine: Engine, channel: _Channel) -> None:
    """Run until told to shut down."""
    while True:
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
    (endpoint,) = sys.argv[1:]
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineSpec)
    logging.basicConfig(level=spec.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    _end_with_parent(sys.stdin.fileno())
    channel = _Channel(endpoint)
    try:
        engine = build_engine(spec)
    except (IntaglioError, OSError, MemoryError) as error:
        channel.send(Failed(f"{type(error).__name__}: {error}"))
        channel.close()
        sys.exit(1)
    channel.send(Ready(engine.max_sequence_tokens))
    serve(engine, channel)


if __name__ == "__main__":
    main()
