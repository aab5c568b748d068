"""Real clients against the real server and the real model."""

from __future__ import annotations

import json
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudflare import Cloudflare

from intaglio.api.catalogue import HOSTED
from tests.e2e.conftest import ACCOUNT, ANSWER_DEADLINE_S, MODEL, RUN, run_model
from tests.helpers.servers import LiveServer

GREEDY: dict[str, Any] = {"prompt": "The capital of France is", "raw": True, "temperature": 0, "max_tokens": 6}
FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def adapters(cloudflare: Cloudflare, adapter_folders: list[Path]) -> list[str]:
    """Names of two finetunes, made and filled with cloudflare-python."""
    names = []
    for number, folder in enumerate(adapter_folders):
        made = cloudflare.ai.finetunes.create(account_id="acc0", model=MODEL, name=f"adapter-{number}")
        for file in FILES:
            cloudflare.ai.finetunes.assets.create(
                made.id, account_id="acc0", file=(folder / file).read_bytes(), file_name=file
            )
        names.append(made.name)
    return names


def streamed(client: httpx.Client, **body: Any) -> tuple[str, dict[str, Any]]:
    """Text and last chunk of a streamed run."""
    with client.stream("POST", RUN, json={**body, "stream": True}) as response:
        assert response.status_code == 200
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    return "".join(chunk["response"] for chunk in chunks), chunks[-1]


def test_cloudflare_python_gets_real_text(cloudflare: Cloudflare) -> None:
    result: Any = cloudflare.ai.run(MODEL, account_id="acc0", extra_body={"temperature": 0}, **{
        "prompt": "The capital of France is", "raw": True, "max_tokens": 6,
    })  # fmt: skip
    assert len(result["response"].split()) >= 4
    usage = result["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (6, 6, 12)
    assert result["finish_reason"] == "length"


def test_cloudflare_python_streams_the_same_text(cloudflare: Cloudflare, http: httpx.Client) -> None:
    with cloudflare.ai.with_streaming_response.run(MODEL, account_id="acc0", stream=True, **GREEDY) as response:
        lines = [line for line in response.iter_lines() if line]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["response"] for chunk in chunks) == run_model(http, **GREEDY)["response"]
    assert chunks[-1]["usage"]["completion_tokens"] == 6


def test_an_adapter_changes_the_completion_and_the_base_stays_the_same(http: httpx.Client, adapters: list[str]) -> None:
    body = {**GREEDY, "max_tokens": 3}
    base = run_model(http, **body)["response"]
    adapted = [run_model(http, **body, lora=name)["response"] for name in adapters]
    assert len({base, *adapted}) == 3
    assert run_model(http, **body)["response"] == base


def test_every_way_to_name_an_adapter_gives_its_completion(http: httpx.Client, adapters: list[str]) -> None:
    listed = http.get(f"{ACCOUNT}/ai/finetunes").json()["result"]
    finetune = next(item for item in listed if item["name"] == adapters[0])
    body = {**GREEDY, "max_tokens": 2}
    wanted = run_model(http, **body, lora=adapters[0])["response"]
    assert run_model(http, **body)["response"] != wanted
    assert run_model(http, **body, lora=finetune["id"])["response"] == wanted
    assert run_model(http, **body, options={"lora": adapters[0]})["response"] == wanted
    response = http.post(RUN, params={"lora": adapters[0]}, json=body)
    assert response.json()["result"]["response"] == wanted
    assert response.headers["intaglio-adapter-digest"] == finetune["digest"]


def test_simultaneous_requests_with_different_adapters_get_what_each_gets_alone(
    http: httpx.Client, adapters: list[str]
) -> None:
    requests = [{**GREEDY, "max_tokens": 4}, *({**GREEDY, "max_tokens": 4, "lora": name} for name in adapters)]
    requests += [
        {**GREEDY, "max_tokens": 4, "prompt": "Once upon a time", "temperature": 1, "seed": 7, "lora": adapters[1]}
    ]
    alone = [run_model(http, **body)["response"] for body in requests]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda body: streamed(http, **body)[0], requests))
    assert together == alone


def test_messages_and_prompt_are_rendered_the_same_way(http: httpx.Client) -> None:
    body = {"temperature": 0, "max_tokens": 3}
    by_prompt = run_model(http, prompt="Hello", **body)
    by_messages = run_model(http, messages=[{"role": "user", "content": "Hello"}], **body)
    by_parts = run_model(http, messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}], **body)
    assert by_prompt["response"] == by_messages["response"] == by_parts["response"]
    assert by_prompt["usage"]["prompt_tokens"] == by_messages["usage"]["prompt_tokens"] > 6


def test_a_stop_string_ends_the_completion(http: httpx.Client) -> None:
    text = run_model(http, **GREEDY)["response"]
    stop = text.split()[2]
    cut, last = streamed(http, **GREEDY, stop=[stop, "never said"])
    assert cut == text[: text.index(stop)]
    assert last["finish_reason"] == "stop"


def test_max_tokens_zero_is_an_empty_completion_that_counts_the_prompt(http: httpx.Client) -> None:
    result = run_model(http, **{**GREEDY, "max_tokens": 0})
    assert (result["response"], result["finish_reason"]) == ("", "length")
    assert result["usage"]["prompt_tokens"] == result["usage"]["total_tokens"] == 6


def test_curl_as_the_docs_write_it_creates_uploads_and_runs(
    live_server: LiveServer, adapter_folders: list[Path]
) -> None:
    def curl(*arguments: str) -> Any:
        command = ["curl", "-sS", "-H", "Authorization: Bearer any", *arguments]
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=ANSWER_DEADLINE_S)
        content = json.loads(done.stdout)
        assert content["success"] is True, content
        return content["result"]

    finetunes = f"{live_server.url}{ACCOUNT}/ai/finetunes/"
    curl("-X", "POST", finetunes, "-d", json.dumps({"model": MODEL, "name": "by-curl", "description": "docs"}))
    for name in FILES:
        curl(
            "-X", "POST", f"{finetunes}by-curl/finetune-assets/", "-H", "Content-Type: multipart/form-data",
            "-F", f"file_name={name}", "-F", f"file=@{adapter_folders[0] / name}",
        )  # fmt: skip
    assert "by-curl" in [item["name"] for item in curl(finetunes)]
    body = {"messages": [{"role": "user", "content": "Hi"}], "raw": "true", "lora": "by-curl", "max_tokens": 2}
    assert curl("-X", "POST", live_server.url + RUN, "-d", json.dumps(body))["usage"]["completion_tokens"] >= 1


def test_cloudflare_python_lists_models_and_public_finetunes(cloudflare: Cloudflare) -> None:
    names = [model["name"] for model in cloudflare.ai.models.list(account_id="acc0")]  # type: ignore[index]
    assert names == [MODEL, *HOSTED]
    public = cloudflare.ai.finetunes.public.list(account_id="acc0")
    assert all(item.public for item in public)


@pytest.mark.slow
def test_every_account_can_use_the_demo_adapters_by_name_and_id(http: httpx.Client) -> None:
    demos = http.get(f"{ACCOUNT}/ai/finetunes/public").json()["result"]
    assert len(demos) >= 2
    for demo in demos:
        assert demo["name"].startswith("intaglio-")
        assert demo["model"] == MODEL
        body = {"prompt": demo["example_prompt"], "max_tokens": 3, "temperature": 0}
        texts = {run_model(http, **body, lora=demo[key])["response"] for key in ("name", "id")}
        assert len(texts) == 1
        assert run_model(http, **body)["response"] not in texts


def test_a_client_that_disconnects_frees_its_sequence(live_server: LiveServer, http: httpx.Client) -> None:
    with http.stream("POST", RUN, json={**GREEDY, "max_tokens": 5000, "stream": True}) as response:
        assert next(response.iter_lines()).startswith("data: ")
        request_id = response.headers["cf-ai-req-id"]
    live_server.log.wait_for(f"run {request_id} .*reason=abort")
    assert run_model(http, **{**GREEDY, "max_tokens": 1})["response"]
