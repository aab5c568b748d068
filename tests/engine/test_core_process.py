"""The engine process's end of the socket: it waits while there is nothing to do, until a message or `wake`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from intaglio.engine.core_process import EngineSocket
from intaglio.engine.protocol import Shutdown


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[zmq.Socket[bytes], EngineSocket]]:
    """The API's end, and the engine's."""
    endpoint = f"ipc://{tmp_path}/engine.sock"
    ours: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    ours.bind(endpoint)
    socket = EngineSocket(endpoint)
    yield ours, socket
    socket.close()
    ours.close(linger=0)


def test_any_number_of_wakes_end_one_wait(ends: tuple[zmq.Socket[bytes], EngineSocket]) -> None:
    ours, socket = ends
    for _ in range(3):
        socket.wake()
    assert socket.receive(wait=True) == []
    waited = threading.Event()

    def send() -> None:
        waited.wait(30)
        ours.send(msgspec.msgpack.encode(Shutdown()))

    sender = threading.Thread(target=send)
    sender.start()
    waited.set()
    # A wake left over would end this at once, and for ever: an engine with nothing to do would never wait.
    assert socket.receive(wait=True) == [Shutdown()]
    sender.join()


def test_a_wake_before_the_wait_ends_it(ends: tuple[zmq.Socket[bytes], EngineSocket]) -> None:
    _, socket = ends
    assert socket.receive(wait=False) == []
    socket.wake()
    assert socket.receive(wait=False) == []
    assert socket.receive(wait=True) == []
