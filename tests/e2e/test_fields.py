"""The fields of other servers over HTTP, with a tiny model in the real engine: each does what the table says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from intaglio.api.openai.fields import Route, Treatment, fields_of
from tests.api.openai.published_fields import (
    OPENAI_CHAT,
    OPENAI_COMPLETIONS,
    VLLM_BEFORE,
    VLLM_CHAT,
    VLLM_COMPLETIONS,
)
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.servers import LiveServer, serve
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_model

MODEL = "@local/tiny"
MESSAGES = [{"role": "user", "content": "what is the answer"}]
PROMPT = "what is the answer"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12}
WILD: dict[str, Any] = {"temperature": 1.5, "max_tokens": 40, "seed": 5}
PUBLISHED = {
    Route.CHAT: sorted({*OPENAI_CHAT, *VLLM_CHAT, *VLLM_BEFORE}),
    Route.COMPLETIONS: sorted({*OPENAI_COMPLETIONS, *VLLM_COMPLETIONS, *VLLM_BEFORE}),
}
# A value that each honoured field serves, beside what `GREEDY` sends.
SERVED: dict[str, Any] = {
    "model": MODEL, "messages": MESSAGES, "prompt": PROMPT, "max_tokens": -1, "max_completion_tokens": 12,
    "min_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "seed": -7, "frequency_penalty": 1,
    "presence_penalty": -1, "repetition_penalty": 1.2, "logit_bias": {"7": 3}, "stop": ["q"], "stop_token_ids": [9],
    "include_stop_str_in_output": True, "ignore_eos": True, "skip_special_tokens": False, "n": 2, "stream": False,
    "stream_options": {"include_usage": True}, "top_logprobs": 2, "prompt_logprobs": 1,
    "return_tokens_as_token_ids": True, "best_of": 1, "response_format": {"type": "text"},
    "structured_outputs": {"choice": ["a", "b"]}, "guided_json": {"type": "boolean"}, "guided_regex": "[ab]{2}",
    "guided_choice": ["a", "b"], "guided_grammar": 'root ::= "a" | "b"', "tools": [], "tool_choice": "none",
    "parallel_tool_calls": False, "truncate_prompt_tokens": 4, "truncation_side": "left", "cache_salt": "s",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    root = tmp_path_factory.mktemp("fields")
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(root / "tiny", config, random_weights(config, 3))
    write_tokenizer_model(root / "tiny" / "tokenizer.model", tiny_pieces(512))
    arguments = [f"--model={MODEL}={root / 'tiny'}", "--kv-cache-bytes", str(1 << 24)]
    arguments += ["--cache-dir", str(root / "cache"), "--chat-max-tokens", "5", "--completions-max-tokens", "6"]
    arguments += ["--run-max-tokens", "7", "--responses-max-tokens", "8"]
    with serve(arguments, root / "data") as started:
        yield started


def post(server: LiveServer, route: Route, **fields: Any) -> httpx.Response:
    path, asked = {
        Route.CHAT: ("chat/completions", {"messages": MESSAGES}),
        Route.COMPLETIONS: ("completions", {"prompt": PROMPT}),
    }[route]
    body = {"model": MODEL, **asked, **fields}
    return httpx.post(f"{server.account()}/ai/v1/{path}", json=body, timeout=60)


def choice(server: LiveServer, route: Route, **fields: Any) -> dict[str, Any]:
    response = post(server, route, **fields)
    assert response.status_code == 200, response.text
    body = response.json()
    first = body["choices"][0]
    text = first["message"]["content"] if route is Route.CHAT else first["text"]
    return {**first, "text": text, "usage": body["usage"]}


@pytest.mark.parametrize(("route", "name"), [(route, name) for route in Route for name in PUBLISHED[route]])
def test_every_published_field_is_served_or_refused_by_name(server: LiveServer, route: Route, name: str) -> None:
    field = fields_of(route)[name]
    asked = dict(GREEDY)
    if field.treatment is Treatment.REFUSED:
        response = post(server, route, **asked, **{name: {"a": "b"}})
        assert response.status_code == 400
        assert f"{name} is not supported: {field.note}" in response.json()["errors"][0]["message"]
        return
    assert field.schema is not None
    value = SERVED.get(name)
    if value is None:
        kind = field.schema.get("type")
        value = {"string": "x", "boolean": route is Route.CHAT and name == "logprobs", "integer": 1, "object": {}}[kind]
    if name == "top_logprobs":
        asked["logprobs"] = True
    if name == "max_completion_tokens":
        del asked["max_tokens"]
    if name == "max_tokens":
        asked["stop_token_ids"] = list(range(300, 428))
    assert choice(server, route, **{**asked, name: value})["text"] is not None


def test_each_route_has_its_own_default_of_max_tokens(server: LiveServer) -> None:
    endless = {"ignore_eos": True, "temperature": 0}
    assert choice(server, Route.CHAT, **endless)["usage"]["completion_tokens"] == 5
    assert choice(server, Route.COMPLETIONS, **endless)["usage"]["completion_tokens"] == 6
    native = httpx.post(f"{server.account()}/ai/run/{MODEL}", json={"prompt": PROMPT, **endless}, timeout=60)
    assert native.json()["result"]["usage"]["completion_tokens"] == 7
    body = {"model": MODEL, "input": PROMPT, "temperature": 0}
    response = httpx.post(f"{server.account()}/ai/v1/responses", json=body, timeout=60).json()
    assert response["usage"]["output_tokens"] <= 8
    assert response["max_output_tokens"] is None


def test_minus_one_and_null_go_to_the_window(server: LiveServer) -> None:
    window = httpx.get(f"{server.account()}/ai/v1/models").json()["data"][0]["max_model_len"]
    for value in (-1, None):
        usage = choice(server, Route.COMPLETIONS, max_tokens=value, ignore_eos=True, temperature=0)["usage"]
        assert usage["total_tokens"] == window


def test_stop_tokens_end_a_completion_and_their_text_is_kept_on_request(server: LiveServer) -> None:
    shared = {**WILD, "ignore_eos": True}
    free = choice(server, Route.COMPLETIONS, logprobs=0, return_tokens_as_token_ids=True, **shared)
    ids = [int(token.removeprefix("token_id:")) for token in free["logprobs"]["tokens"]]
    end = ids[3]
    first = ids.index(end)
    cut = choice(server, Route.COMPLETIONS, stop_token_ids=[end], **shared)
    kept = choice(server, Route.COMPLETIONS, stop_token_ids=[end], include_stop_str_in_output=True, **shared)
    assert (cut["finish_reason"], cut["usage"]["completion_tokens"]) == ("stop", first + 1)
    assert free["text"].startswith(kept["text"])
    assert kept["text"].startswith(cut["text"])
    assert len(kept["text"]) > len(cut["text"])
    later = choice(server, Route.COMPLETIONS, stop_token_ids=[end], min_tokens=first + 2, **shared)
    assert later["usage"]["completion_tokens"] > first + 1


def test_the_stop_string_is_kept_on_request(server: LiveServer) -> None:
    free = choice(server, Route.CHAT, **WILD, ignore_eos=True)["text"]
    stop = free[4:6]
    for included, text in ((False, free.partition(stop)[0]), (True, free.partition(stop)[0] + stop)):
        found = choice(server, Route.CHAT, **WILD, ignore_eos=True, stop=stop, include_stop_str_in_output=included)
        assert (found["text"], found["finish_reason"]) == (text, "stop")


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"structured_outputs": {"choice": ["Paris", "Rome"]}}, "Paris|Rome"),
    ({"guided_choice": ["Paris", "Rome"]}, "Paris|Rome"),
    ({"structured_outputs": {"regex": r"^[a-c]{3}/\d$"}}, r"[a-c]{3}/\d"),
    ({"guided_regex": r"(yes|no)!"}, r"(yes|no)!"),
    ({"structured_outputs": {"grammar": 'start: "x" digit+ "y"\ndigit: /[0-3]/'}}, "x[0-3]+y"),
    ({"guided_grammar": 'root ::= "x" digit\ndigit ::= [0-3]'}, "x[0-3]"),
    ({"structured_outputs": {"json": '{"type": "boolean"}'}}, "true|false"),
    ({"guided_json": {"enum": [1, 22]}}, "1|22"),
]


@pytest.mark.parametrize(("fields", "pattern"), FORMS)
@pytest.mark.parametrize("route", list(Route))
def test_a_completion_has_the_form_that_is_asked_for(
    server: LiveServer, route: Route, fields: dict[str, Any], pattern: str
) -> None:
    for seed in range(4):
        found = choice(server, route, **{**WILD, "seed": seed, "max_tokens": 200}, **fields)
        assert re.fullmatch(pattern, found["text"]), found["text"]
        assert found["finish_reason"] == "stop"


@pytest.mark.parametrize(("fields", "pattern"), FORMS)
def test_the_native_route_has_the_same_forms(server: LiveServer, fields: dict[str, Any], pattern: str) -> None:
    body = {"prompt": PROMPT, **WILD, "max_tokens": 200, "min_p": 0.001, **fields}
    result = httpx.post(f"{server.account()}/ai/run/{MODEL}", json=body, timeout=60).json()["result"]
    response = result["response"]
    assert re.fullmatch(pattern, response if isinstance(response, str) else json.dumps(response))


def test_a_seeded_request_is_the_same_alone_beside_others_and_streamed(server: LiveServer) -> None:
    asked = [
        {**WILD, "seed": seed, "min_p": 0.01 * seed, "min_tokens": 10, "stop_token_ids": list(range(20, 120))}
        for seed in range(1, 7)
    ]
    alone = [choice(server, Route.CHAT, **fields)["text"] for fields in asked]
    with ThreadPoolExecutor(len(asked)) as pool:
        together = list(pool.map(lambda fields: choice(server, Route.CHAT, **fields)["text"], asked))
    assert together == alone
    options = {"include_usage": True, "continuous_usage_stats": True}
    lines = post(server, Route.CHAT, **asked[0], stream=True, stream_options=options).text.split("\n\n")
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]) == alone[0]
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert 0 < counts[0] < counts[-1]


def test_a_salt_keeps_the_cache_of_others_away(server: LiveServer) -> None:
    long = "the answer is " * 12

    def cached(salt: str | None) -> int:
        found = choice(server, Route.COMPLETIONS, prompt=long, cache_salt=salt, **GREEDY)
        return int(found["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert [cached("a"), cached("b")] == [0, 0]
    assert cached("a") > 0
    assert cached(None) == 0


def test_a_cut_prompt_is_the_prompt_of_its_last_tokens(server: LiveServer) -> None:
    ids = [2, *range(20, 60)]
    cut = choice(server, Route.COMPLETIONS, prompt=ids, truncate_prompt_tokens=9, **GREEDY)
    same = choice(server, Route.COMPLETIONS, prompt=[2, *ids[-8:]], **GREEDY)
    assert cut["usage"]["prompt_tokens"] == 9
    assert cut["text"] == same["text"]


def test_control_tokens_are_written_on_request(server: LiveServer) -> None:
    shared = {**GREEDY, "ignore_eos": True, "logit_bias": {"1": 100}}
    assert choice(server, Route.COMPLETIONS, **shared)["text"] == ""
    assert choice(server, Route.COMPLETIONS, skip_special_tokens=False, **shared)["text"] == "<eos>" * 12


def test_the_handed_cases_are_served(server: LiveServer) -> None:
    """`echo` with `logprobs`, a choice, and `ignore_eos`, which vLLM serves."""
    echoed = choice(server, Route.COMPLETIONS, prompt=[2, 18, 27, 29, 70], max_tokens=1, echo=True, logprobs=1)
    assert len(echoed["logprobs"]["tokens"]) == 6
    chosen = choice(server, Route.CHAT, structured_outputs={"choice": ["Paris", "Rome"]}, max_tokens=6, temperature=0)
    assert chosen["text"] in ("Paris", "Rome")
    endless = choice(server, Route.CHAT, ignore_eos=True, max_tokens=100, temperature=0)
    assert (endless["usage"]["completion_tokens"], endless["finish_reason"]) == (100, "length")
