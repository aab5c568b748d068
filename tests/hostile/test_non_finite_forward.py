"""Adapters with valid files whose forward is not finite: refused by the verification, or only their request fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.cases.non_finite_forward import LARGE_VOCAB, NO_CHANGE, NOT_FINITE, POISONED_TOKEN, ZEROS, poisoned
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import Files
from tests.hostile.tiny_server import DEADLINE_S, MODEL, TinyServer, body, tiny_server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unharmed")]


@pytest.mark.parametrize("name", [*NOT_FINITE, *NO_CHANGE])
def test_verification_refuses_adapters_that_no_file_check_can_refuse(live: TinyServer, good: Files, name: str) -> None:
    files = (NOT_FINITE | NO_CHANGE)[name](good)
    finetune = f"absurd-{name.replace(' ', '-')}"
    live.create(finetune)
    assert live.upload(finetune, CONFIG, files.config).status_code == 200
    before = folder_contents(live.server.data_dir)
    response = live.upload(finetune, WEIGHTS, files.weights)
    (error,) = response.json()["errors"]
    assert (response.status_code, error["code"]) == (400, 5006), error
    assert ("not finite" if name in NOT_FINITE else "changes nothing") in error["message"]
    assert folder_contents(live.server.data_dir) == before
    found = live.read(finetune)
    assert (found["state"], found["missing_files"]) == ("refused", [WEIGHTS])
    assert found["reason"] in error["message"]


def test_a_refusal_names_the_product_that_is_not_finite_first(live: TinyServer, good: Files) -> None:
    live.create("absurd")
    files = NOT_FINITE["a product beyond float32"](good)
    assert live.upload("absurd", CONFIG, files.config).status_code == 200
    assert "first in layers.0.self_attn.q_proj" in live.upload("absurd", WEIGHTS, files.weights).text


def test_an_embedding_of_zeros_is_served(live: TinyServer, good: Files) -> None:
    live.publish("zeros", ZEROS(good))
    assert live.read("zeros")["verification"]["scalable"] is False
    assert live.text("zeros")[0] != live.text(None)[0]


@pytest.fixture
def large_vocabulary(tmp_path: Path) -> Iterator[TinyServer]:
    with (
        tiny_server(tmp_path, tmp_path / "data", vocab_size=LARGE_VOCAB) as server,
        httpx.Client(timeout=DEADLINE_S) as http,
    ):
        live = TinyServer(server, http)
        yield live
        live.check_unharmed()


def test_a_fault_on_one_token_only_ends_that_request_and_no_other(large_vocabulary: TinyServer, good: Files) -> None:
    live = large_vocabulary
    live.publish("neighbour", good)
    expected = [live.text(name, 200) for name in (None, "neighbour")]
    live.publish("poisoned", poisoned(good))
    harmless = live.text("poisoned", 20)[0]
    with live.stream("neighbour") as pieces:
        text = next(pieces)
        for _ in range(20):  # enough to write NaN into much of the KV cache
            prompt = [2, *range(100, 300), POISONED_TOKEN, *range(100, 300)]
            answer = run(live, "poisoned", prompt)
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (500, 3043), answer.text
            assert "no finite logits" in answer.json()["errors"][0]["message"]
        while len(text) < len(expected[1][0]):
            text += next(pieces)
    assert text.startswith(expected[1][0])
    assert [live.text(name, 200) for name in (None, "neighbour")] == expected
    assert live.text("poisoned", 20)[0] == harmless


def run(live: TinyServer, name: str, prompt: list[int]) -> Any:
    url = f"{live.server.account()}/ai/v1/completions"
    return live.http.post(url, json=body(name, 5, prompt=prompt, model=MODEL))
