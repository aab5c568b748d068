from __future__ import annotations

from collections.abc import Iterator

import pytest

from intaglio.api.app import create_app
from intaglio.client import Connection, stream_completion
from intaglio.errors import ServerRefusedError, ServerUnreachableError
from intaglio.model.config import config_from_hf
from intaglio.settings import Settings
from tests.api.conftest import MODEL, fake_state
from tests.helpers.checkpoints import tiny_config
from tests.helpers.live_server import live_server


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"))
    state = fake_state(settings, config_from_hf(tiny_config("gemma")))
    with live_server(create_app(state)) as url, Connection(f"{url}/client/v4/accounts/acc0/ai") as connection:
        yield connection


def text_of(connection: Connection, **body: object) -> str:
    return "".join(piece.text for piece in stream_completion(connection, {"model": MODEL, **body}))


def test_a_prompt_and_a_chat_are_completed_piece_by_piece(connection: Connection) -> None:
    pieces = list(stream_completion(connection, {"model": MODEL, "prompt": "a b c"}))
    assert "".join(piece.text for piece in pieces).split() == ["c", "b", "a"]
    assert len(pieces) == 4
    assert (pieces[-1].finish_reason, pieces[-1].completion_tokens) == ("stop", 3)
    assert pieces[-1].prompt_tokens > 0
    chat = [{"role": "user", "content": "a b c"}]
    assert text_of(connection, messages=chat).split()[:3] == ["c", "b", "a"]


def test_a_refusal_is_the_servers_sentence(connection: Connection) -> None:
    with pytest.raises(ServerRefusedError, match="nowhere not found"):
        text_of(connection, prompt="a", lora="nowhere")
    with pytest.raises(ServerRefusedError, match="No such model"):
        list(stream_completion(connection, {"model": "@intaglio/other", "prompt": "a"}))


def test_an_error_in_the_middle_of_a_stream_is_raised_after_the_text_before_it(connection: Connection) -> None:
    pieces = []
    with pytest.raises(ServerRefusedError):
        for piece in stream_completion(connection, {"model": MODEL, "prompt": "a <fail> b c"}):
            pieces.append(piece.text.strip())
    assert pieces == ["c", "b"]


def test_a_server_that_is_not_there_is_named() -> None:
    with Connection("127.0.0.1:1") as nobody, pytest.raises(ServerUnreachableError, match=r"http://127.0.0.1:1"):
        text_of(nobody, prompt="a")
