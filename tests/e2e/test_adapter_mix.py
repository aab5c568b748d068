"""Mixes of adapters with scales, with the real model: the same bits over HTTP as in a script."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from intaglio.demo_adapters import demo_adapter_folders
from intaglio.llm import LLM
from intaglio.request import AdapterRef, SamplingParams, ScaledAdapter
from tests.e2e.conftest import ACCOUNT, MODEL, RUN, run_model
from tests.helpers.servers import LiveServer

HEADER = "intaglio-adapter-digest"
NAMES = ("intaglio-json", "intaglio-sql")
SCALES = (0.5, 0.75)
PROMPT = "Please send two wool scarves to Ines Duarte in Funchal."
GREEDY: dict[str, Any] = {"prompt": PROMPT, "temperature": 0, "max_tokens": 12}
MIX = [{"name": name, "scale": scale} for name, scale in zip(NAMES, SCALES, strict=True)]


@pytest.fixture(scope="module")
def llm() -> LLM:
    return LLM(kv_cache_bytes=1 << 26, adapter_cache_bytes=1 << 26)


@pytest.fixture(scope="module")
def refs(llm: LLM) -> list[AdapterRef]:
    return [llm.load_adapter(demo_adapter_folders()[name]) for name in NAMES]


def logprobs(http: httpx.Client, **fields: Any) -> list[float]:
    """Logprobs of the sampled tokens, which differ if one bit of the logits differs."""
    body = {"model": MODEL, "prompt": "The order of", "max_tokens": 8, "temperature": 0, "logprobs": 1, **fields}
    response = http.post(f"{ACCOUNT}/ai/v1/completions", json=body)
    assert response.status_code == 200, response.text
    values: list[float] = response.json()["choices"][0]["logprobs"]["token_logprobs"]
    return values


def test_a_mix_gives_the_same_text_over_http_streamed_or_not_and_in_a_script(
    http: httpx.Client, llm: LLM, refs: list[AdapterRef]
) -> None:
    mix = [ScaledAdapter(ref, scale) for ref, scale in zip(refs, SCALES, strict=True)]
    params = SamplingParams(temperature=0, max_tokens=12)
    completions = llm.generate([PROMPT] * 4, params, adapters=[mix, *refs, None])
    wanted, *others = [completion.text for completion in completions]
    assert run_model(http, **GREEDY, lora=MIX)["response"] == wanted
    assert run_model(http, **GREEDY, lora=MIX[::-1])["response"] == wanted
    assert wanted not in others
    with http.stream("POST", RUN, json={**GREEDY, "lora": MIX, "stream": True}) as response:
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line]
        digest = response.headers[HEADER]
    assert data[-1] == "[DONE]"
    assert "".join(json.loads(event)["response"] for event in data[:-1]) == wanted
    assert digest not in {ref.digest for ref in refs}


def test_a_mix_gives_the_same_bits_in_any_batch(http: httpx.Client) -> None:
    alone = logprobs(http, lora=MIX)
    batch = {"prompt": ["The order of"] * 2, "n": 2, "lora": MIX}
    body = {"model": MODEL, "max_tokens": 8, "temperature": 0, "logprobs": 1, **batch}
    choices = http.post(f"{ACCOUNT}/ai/v1/completions", json=body).json()["choices"]
    assert [choice["logprobs"]["token_logprobs"] for choice in choices] == [alone] * 4


@pytest.mark.slow
def test_scale_0_is_the_base_and_scale_1_the_adapter_itself_to_the_last_bit(http: httpx.Client) -> None:
    base, alone = logprobs(http), logprobs(http, lora=NAMES[0])
    assert base != alone
    assert logprobs(http, lora=[{"name": NAMES[0], "scale": 0}]) == base
    for form in ([NAMES[0]], [{"name": NAMES[0], "scale": 1}], [NAMES[0], {"name": NAMES[1], "scale": 0}]):
        assert logprobs(http, lora=form) == alone
    half = logprobs(http, lora=[{"name": NAMES[0], "scale": 0.5}])
    assert half not in (base, alone)


def test_a_scaled_adapter_has_its_own_prefix_cache_entries(http: httpx.Client) -> None:
    """A prompt is found in the prefix cache with the same scale, and not with another."""
    prompt = "The harbour was quiet in the morning, and the boats lay side by side. " * 4

    def cached(scale: float) -> int:
        body = {"prompt": prompt, "raw": True, "temperature": 0, "max_tokens": 2}
        found = run_model(http, **body, lora=[{"name": NAMES[0], "scale": scale}])
        return int(found["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached(0.31) == 0
    assert cached(0.32) == 0
    assert cached(0.31) > 0


def test_the_log_names_the_members_of_a_mix(http: httpx.Client, live_server: LiveServer) -> None:
    response = http.post(RUN, json={**GREEDY, "lora": MIX, "max_tokens": 1})
    line = live_server.log.wait_for(f"run {response.headers['cf-ai-req-id']} .*")[0]
    assert f"adapter={response.headers[HEADER]} of=" in line
    assert "*0.5" in line and "*0.75" in line
