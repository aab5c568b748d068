"""Batches on the real server with the real model: submitted and polled by Cloudflare's client, and resumed after a
kill.
"""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudflare import Cloudflare

from tests.e2e.conftest import ANSWER_DEADLINE_S, MODEL, RUN, run_model
from tests.helpers.servers import LiveServer, serve

QUEUE = {"queueRequest": "true"}
FILES = ("adapter_config.json", "adapter_model.safetensors")
SUBJECTS = ("France", "Japan", "salt", "the moon", "a cat", "rain", "tea")


def greedy(subject: str, max_tokens: int = 4, **fields: Any) -> dict[str, Any]:
    prompt = f"The most important thing about {subject} is"
    return {"prompt": prompt, "raw": True, "temperature": 0, "max_tokens": max_tokens, **fields}


def poll(http: httpx.Client, request_id: str) -> dict[str, Any]:
    response = http.post(RUN, params=QUEUE, json={"request_id": request_id})
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["result"]
    return result


@pytest.fixture(scope="module")
def adapters(cloudflare: Cloudflare, adapter_folders: list[Path]) -> list[str]:
    names = []
    for number, folder in enumerate(adapter_folders):
        made = cloudflare.ai.finetunes.create(account_id="acc0", model=MODEL, name=f"batch-{number}")
        for file in FILES:
            content = (folder / file).read_bytes()
            cloudflare.ai.finetunes.assets.create(made.id, account_id="acc0", file=content, file_name=file)
        names.append(made.name)
    return names


def test_cloudflare_python_submits_polls_and_gets_what_each_request_gets_alone(
    live_server: LiveServer, cloudflare: Cloudflare, http: httpx.Client, adapters: list[str]
) -> None:
    mixes: list[dict[str, Any]] = [{}, {"lora": adapters[0]}, {"lora": adapters[1]}]
    requests = [greedy(SUBJECTS[number % 7], **mixes[number % 3]) for number in range(20)]
    body = {"requests": [{**request, "external_reference": f"r{n}"} for n, request in enumerate(requests)]}
    submitted: Any = cloudflare.ai.run(MODEL, account_id="acc0", prompt="", extra_query=QUEUE, extra_body=body)
    assert submitted["status"] == "queued"
    live_server.log.wait_for(f"batch {submitted['request_id']} model={MODEL} .* items=20 failed=0")
    asked = {"request_id": submitted["request_id"]}
    done: Any = cloudflare.ai.run(MODEL, account_id="acc0", prompt=None, extra_query=QUEUE, extra_body=asked)  # type: ignore[call-overload]
    assert [(entry["id"], entry["external_reference"]) for entry in done["responses"]] == [
        (n, f"r{n}") for n in range(20)
    ]
    alone = [run_model(http, **request)["response"] for request in requests]
    assert [entry["result"]["response"] for entry in done["responses"]] == alone
    assert len(set(alone)) > 7  # the adapters did change answers
    assert done["usage"]["completion_tokens"] == sum(
        entry["result"]["usage"]["completion_tokens"] for entry in done["responses"]
    )


@pytest.mark.slow
def test_an_item_in_json_mode_has_an_object_as_its_response(live_server: LiveServer, http: httpx.Client) -> None:
    schema = {"type": "object", "properties": {"sky": {"enum": ["blue", "red"]}}, "required": ["sky"]}
    shown = '{"sky": "red"}\n{"sky": "blue"}\n'
    request = {**greedy("", 20), "prompt": shown, "response_format": {"type": "json_schema", "json_schema": schema}}
    request_id = http.post(RUN, params=QUEUE, json={"requests": [request]}).json()["result"]["request_id"]
    live_server.log.wait_for(f"batch {request_id} ")
    (entry,) = poll(http, request_id)["responses"]
    assert entry["result"]["response"]["sky"] in ("blue", "red"), entry


@pytest.mark.slow
def test_a_restarted_server_resumes_a_batch_and_each_item_has_one_result(tmp_path: Path, http: httpx.Client) -> None:
    """Also: an interactive request before the kill gets its response while most of the batch is still queued."""
    requests = [greedy(subject, 16) for subject in SUBJECTS * 2]
    options = ["--max-running", "2", "--batch-running", "2"]
    with serve(options, tmp_path) as server, httpx.Client(base_url=server.url, timeout=ANSWER_DEADLINE_S) as client:
        request_id = client.post(RUN, params=QUEUE, json={"requests": requests}).json()["result"]["request_id"]
        server.log.wait_for(f"run {request_id}-0 .* reason=")
        run_model(client, **greedy("night", 1))
        assert poll(client, request_id)["status"] == "running"
        os.kill(server.pid, signal.SIGKILL)
    with serve(options, tmp_path) as server, httpx.Client(base_url=server.url, timeout=ANSWER_DEADLINE_S) as client:
        server.log.wait_for(f"batch {request_id} .* items=14 failed=0")
        responses = poll(client, request_id)["responses"]
        run_again = set(re.findall(rf"run {request_id}-(\d+) .* reason=", server.log.text))
    assert [entry["id"] for entry in responses] == list(range(14))
    assert 0 < len(run_again) < 14  # items that had a result kept it
    alone = [run_model(http, **request)["response"] for request in requests[:7]]
    assert [entry["result"]["response"] for entry in responses] == alone * 2
