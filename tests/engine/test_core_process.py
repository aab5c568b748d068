"""The engine process's end of the socket: it waits while there is nothing to do, and wakes when somebody rings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from intaglio.engine.core_process import _Channel
from intaglio.engine.protocol import Shutdown


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[zmq.Socket[bytes], _Channel]]:
    """The API's end, and the engine's."""
    endpoint = f"ipc://{tmp_path}/engine.sock"
    ours: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PAIR)
    ours.bind(endpoint)
    channel = _Channel(endpoint)
    yield ours, channel
    channel.close()
    ours.close(linger=0)


def test_each_ring_ends_one_wait_and_no_more(ends: tuple[zmq.Socket[bytes], _Channel]) -> None:
    ours, channel = ends
    for _ in range(3):
        channel.ring()
    assert channel.receive(wait=True) == []
    waited = threading.Event()

    def send() -> None:
        waited.wait(30)
        ours.send(msgspec.msgpack.encode(Shutdown()))

    sender = threading.Thread(target=send)
    sender.start()
    waited.set()
    # A bell that still rang would end this at once, and for ever: an engine with nothing to do would never rest.
    assert channel.receive(wait=True) == [Shutdown()]
    sender.join()


def test_a_bell_rung_while_nobody_waits_is_heard(ends: tuple[zmq.Socket[bytes], _Channel]) -> None:
    _, channel = ends
    assert channel.receive(wait=False) == []
    channel.ring()
    assert channel.receive(wait=False) == []
    assert channel.receive(wait=True) == []
