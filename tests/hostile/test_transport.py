"""Uploads with a wrong length, without an end, or whose sender disconnects: over a real connection."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from intaglio.api.app import create_app
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import MODEL, fake_state
from tests.api.finetunes.calls import FINETUNES
from tests.helpers.live_server import live_server
from tests.helpers.log_lines import log_lines
from tests.hostile.cases.forms import FORM, form, part
from tests.hostile.data_folder import folder_contents

DEADLINE_S = 20.0
MAX_FILE_BYTES = 100_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"), max_adapter_file_bytes=MAX_FILE_BYTES)


@pytest.fixture(scope="module")
def address(settings: Settings, base: ModelConfig) -> Iterator[str]:
    with live_server(create_app(fake_state(settings, base))) as address:
        made = httpx.post(address + FINETUNES, json={"model": MODEL, "name": "mine"})
        assert made.status_code == 200
        yield address
        body, headers = form(b"{}"), {"content-type": FORM}
        refused = httpx.post(f"{address}{FINETUNES}/mine/finetune-assets", content=body, headers=headers)
        assert "peft_type is missing" in refused.text, "a valid form is still read"


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=DEADLINE_S) as http:
        yield http


@pytest.fixture(autouse=True)
def unharmed(address: str, http: httpx.Client, settings: Settings) -> Iterator[None]:
    """After each test the server still responds, and has stored nothing."""
    before = folder_contents(settings.data_path)
    yield
    assert http.get(f"{address}/health").status_code == 200
    assert folder_contents(settings.data_path) == before


@pytest.fixture
def left() -> Iterator[queue.Queue[str]]:
    """A queue of the log lines about clients that disconnected before their request was read."""
    with log_lines("intaglio.api.http.middleware", "the client disconnected") as lines:
        yield lines


@contextmanager
def connected(address: str, *headers: str) -> Iterator[socket.socket]:
    """A connection on which the head of an upload request has been sent."""
    host, port = address.removeprefix("http://").split(":")
    lines = [
        f"POST {FINETUNES}/mine/finetune-assets HTTP/1.1",
        f"Host: {host}",
        f"Content-Type: {FORM}",
        *headers,
        "",
        "",
    ]
    with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1"))
        yield connection


def answer(connection: socket.socket) -> bytes:
    """The first piece of the response, with its status line. Empty if the connection was reset: a response can get lost
    if the server closes the connection before it has read everything.
    """
    try:
        return connection.recv(1 << 16)
    except ConnectionResetError:
        return b""


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_an_endless_chunked_body_is_refused_at_the_limit_and_not_kept(address: str, settings: Settings) -> None:
    """The server reads and discards the rest: if it closed the connection, the sender could lose the response."""
    piece = chunk(b"x" * 10_000)
    with connected(address, "Transfer-Encoding: chunked") as connection:
        connection.sendall(chunk(part('name="file"', b"")[:-2]) + piece * (2 * MAX_FILE_BYTES // 10_000))
        head = answer(connection)
        assert head[:12] == b"HTTP/1.1 413", head
        for _ in range(100):
            connection.sendall(piece)
        assert list((settings.data_path / "incoming").iterdir()) == []


def test_a_declared_length_beyond_the_limit_is_refused_before_the_body(address: str) -> None:
    with connected(address, "Content-Length: 1099511627776") as connection:
        head = answer(connection)
    assert head.startswith(b"HTTP/1.1 413 "), head


def test_a_second_file_is_refused_when_it_begins_and_not_when_it_ends(address: str) -> None:
    with connected(address, f"Content-Length: {MAX_FILE_BYTES}") as connection:
        connection.sendall(part('name="file"', b"{}") + part('name="file"', b""))
        head = answer(connection)
    assert head.startswith(b"HTTP/1.1 400 "), head


@pytest.mark.parametrize(
    "headers",
    [
        ("Content-Length: -1",),
        ("Content-Length: +5",),
        ("Content-Length: 5, 5",),
        ("Content-Length: 0x10",),
        ("Content-Length: \xb2",),
        ("Content-Length: " + "9" * 5000,),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: gzip, chunked, gzip",),
        ("Transfer-Encoding: chunked", "X: " + "y" * 70_000),
    ],
    ids=[
        "negative", "with a plus", "a list", "hexadecimal", "a raised two", "of 5000 digits", "two", "and chunks",
        "unknown codings", "a header of 70,000 bytes",
    ],
)  # fmt: skip
def test_invalid_content_lengths_are_refused(address: str, headers: tuple[str, ...]) -> None:
    with connected(address, *headers) as connection:
        connection.sendall(b"zz\r\nno chunk")
        head = answer(connection)
    assert not head or head[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413", b"HTTP/1.1 431"), head


def test_a_body_longer_than_its_content_length_is_cut_there(address: str) -> None:
    body = form(b"{}")
    with connected(address, f"Content-Length: {len(body) - 20}", "Connection: close") as connection:
        connection.sendall(body)
        head = answer(connection)
    assert head.startswith(b"HTTP/1.1 400 "), head


def test_chunks_of_bad_sizes_are_refused(address: str, left: queue.Queue[str]) -> None:
    for size in (b"-1\r\n", b"zz\r\n", b"ffffffffffffffffff\r\n", b"\r\n\r\n"):
        with connected(address, "Transfer-Encoding: chunked") as connection:
            connection.sendall(chunk(form(b"{}")[:50]) + size)
            assert answer(connection)[:12] in (b"HTTP/1.1 400", b""), size
        left.get(timeout=DEADLINE_S)


def test_a_sender_that_disconnects_at_any_byte_leaves_nothing(
    address: str, settings: Settings, left: queue.Queue[str]
) -> None:
    body = form(b"{}")
    for length in range(len(body)):
        with connected(address, f"Content-Length: {len(body)}") as connection:
            connection.sendall(body[:length])
        left.get(timeout=DEADLINE_S)
    assert list((settings.data_path / "incoming").iterdir()) == []


@pytest.mark.slow
def test_a_hundred_slow_senders_delay_no_other_request_and_leave_nothing(
    address: str, settings: Settings, left: queue.Queue[str]
) -> None:
    body = form(b"x" * 1000)
    with ExitStack() as senders:
        connections = [senders.enter_context(connected(address, f"Content-Length: {len(body)}")) for _ in range(100)]
        for length in range(0, 300, 100):
            for connection in connections:
                connection.sendall(body[length : length + 100])
        assert httpx.get(address + FINETUNES, timeout=DEADLINE_S).status_code == 200
        honest = httpx.post(
            f"{address}{FINETUNES}/mine/finetune-assets",
            content=form(b"{}"),
            headers={"content-type": FORM},
            timeout=DEADLINE_S,
        )
        assert honest.status_code == 400
    for _ in connections:
        left.get(timeout=DEADLINE_S)
    assert list((settings.data_path / "incoming").iterdir()) == []
