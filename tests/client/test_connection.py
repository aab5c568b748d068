"""What the client reports when a server refuses, does not respond, or is another program."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from intaglio.client import Connection, Finetunes
from intaglio.errors import AdapterError, FinetuneNotFoundError, RemoteError, ServerRefusedError, ServerUnreachableError
from tests.api.conftest import MODEL
from tests.client.conftest import TOKEN
from tests.helpers.live_server import live_server


@pytest.fixture(scope="module")
def other_program() -> Iterator[str]:
    """A web server that does not have this API."""

    async def answer(request: Request) -> Response:
        if "redirect" in request.url.path:
            return RedirectResponse("/elsewhere")
        return PlainTextResponse("Hello\x1b[2J there", status_code=404 if "none" in request.url.path else 200)

    with live_server(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])) as address:
        yield address


def test_a_refusal_is_the_servers_sentence_with_its_status_and_code(url: str) -> None:
    with Connection(url, "acc0", TOKEN) as connection, pytest.raises(ServerRefusedError) as refused:
        Finetunes(connection).read("nobody")
    assert (refused.value.status, refused.value.code) == (404, 3037)
    assert str(refused.value).startswith("Finetune nobody not found")


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_missing_or_wrong_token_is_reported(url: str, token: str | None) -> None:
    with Connection(url, "acc0", token) as connection, pytest.raises(ServerRefusedError) as refused:
        Finetunes(connection).list_own()
    assert refused.value.status == 401


def test_control_characters_of_a_reason_do_not_reach_the_terminal(url: str) -> None:
    with Connection(url, "acc0", TOKEN) as connection, pytest.raises(ServerRefusedError) as refused:
        Finetunes(connection).create(name="a\x1b[2Jb\n", model=MODEL)
    assert str(refused.value).isprintable()


def test_names_are_escaped_in_the_path(url: str) -> None:
    with Connection(url, "acc0", TOKEN) as connection, pytest.raises(ServerRefusedError) as refused:
        Finetunes(connection).read("../public?x=#y")
    assert refused.value.status == 404


@pytest.mark.parametrize("name", ["", "public"])
def test_a_name_that_would_change_the_route_is_refused_before_sending(name: str) -> None:
    with (
        Connection("http://127.0.0.1:1") as connection,
        pytest.raises(FinetuneNotFoundError, match=f"{name!r} is not a name"),
    ):
        Finetunes(connection).read(name)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "http://[", "ftp://127.0.0.1/"])
def test_an_unreachable_server_is_one_sentence_with_the_address(address: str) -> None:
    given = address.format(port=free_port())
    with pytest.raises(ServerUnreachableError) as refused, Connection(given) as connection:
        Finetunes(connection).list_own()
    assert given.rstrip("/") in str(refused.value)


@pytest.mark.parametrize("account", ["some", "none", "redirect"])
def test_a_response_of_another_program_is_reported_as_such(other_program: str, account: str, tmp_path: Path) -> None:
    asks: list[Any] = [
        lambda finetunes: finetunes.list_own(),
        lambda finetunes: finetunes.create(name="x", model="y"),
    ]
    with Connection(other_program, account) as connection:
        for ask in asks:
            with pytest.raises(RemoteError, match="is not from a server of this API: status") as refused:
                ask(Finetunes(connection))
            assert str(refused.value).isprintable()
        with pytest.raises(ServerUnreachableError):
            connection.served_models()


def test_a_download_is_complete_or_absent(url: str, folders: list[Path], tmp_path: Path) -> None:
    with Connection(url, "acc0", TOKEN) as connection:
        finetunes = Finetunes(connection)
        finetunes.create(name="mine", model=MODEL)
        path = tmp_path / "adapter_config.json"
        with pytest.raises(ServerRefusedError, match="was not uploaded yet"):
            finetunes.download("mine", path.name, path)
        assert list(tmp_path.iterdir()) == [tmp_path / "data"]
        finetunes.upload("mine", folders[0] / path.name)
        finetunes.download("mine", path.name, path)
    assert path.read_bytes() == (folders[0] / path.name).read_bytes()
    assert sorted(found.name for found in tmp_path.iterdir()) == ["adapter_config.json", "data"]


def test_a_file_that_cannot_be_read_is_reported_before_anything_is_sent(tmp_path: Path) -> None:
    with Connection("http://127.0.0.1:1") as connection, pytest.raises(AdapterError, match="cannot be read"):
        Finetunes(connection).upload("mine", tmp_path)
