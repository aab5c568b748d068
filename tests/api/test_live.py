"""What only a real connection shows: text arrives as it is made, a client that leaves is noticed, real clients work."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cloudflare import BadRequestError, Cloudflare, NotFoundError

from intaglio.api.app import create_app
from intaglio.api.catalogue import HOSTED
from intaglio.api.state import ServerState
from tests.api.conftest import ACCOUNT, MODEL, RUN
from tests.helpers.fakes import FakeLLM
from tests.helpers.live_server import live_server

DEADLINE_S = 20.0


@pytest.fixture
def address(state: ServerState) -> Iterator[str]:
    with live_server(create_app(state)) as address:
        yield address


@pytest.fixture
def cloudflare(address: str) -> Iterator[Cloudflare]:
    with Cloudflare(api_token="any", base_url=f"{address}/client/v4", max_retries=0) as client:
        yield client


def test_pieces_arrive_as_they_are_generated_and_a_disconnect_frees_the_sequence(address: str, llm: FakeLLM) -> None:
    body = {"prompt": "never <stall> two one", "raw": True, "stream": True}
    with httpx.stream("POST", address + RUN, json=body, timeout=DEADLINE_S) as response:
        events = (json.loads(line.removeprefix("data: ")) for line in response.iter_lines() if line)
        assert [next(events)["response"] for _ in range(2)] == ["one", " two"]
        assert llm.stalled.wait(DEADLINE_S)
        assert not llm.aborted.is_set()
    assert llm.aborted.wait(DEADLINE_S)


def test_a_disconnect_frees_the_sequence_of_a_response_that_is_not_streamed(address: str, llm: FakeLLM) -> None:
    with httpx.Client(timeout=httpx.Timeout(DEADLINE_S, read=0.2)) as client, pytest.raises(httpx.ReadTimeout):
        client.post(address + RUN, json={"prompt": "never <stall> one", "raw": True})
    assert llm.aborted.wait(DEADLINE_S)


def test_a_disconnect_before_the_first_token_frees_the_sequence(address: str, llm: FakeLLM) -> None:
    with httpx.Client(timeout=httpx.Timeout(DEADLINE_S, read=0.2)) as client, pytest.raises(httpx.ReadTimeout):
        client.post(address + RUN, json={"prompt": "<stall>", "raw": True, "stream": True})
    assert llm.aborted.wait(DEADLINE_S)


def test_a_body_without_end_is_cut_off_at_the_limit(address: str) -> None:
    size = 50_000_000
    result = subprocess.run(
        ["curl", "-sS", "-X", "POST", address + RUN, "--data-binary", "@-", "-H", "Expect:"],
        input=b"x" * size, capture_output=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip
    assert json.loads(result.stdout)["errors"][0]["code"] == 3006
    assert httpx.get(f"{address}/health").status_code == 200


def test_curl_as_the_docs_write_it(address: str, adapter_folder: Path) -> None:
    def curl(*arguments: str) -> dict[str, object]:
        command = ["curl", "-sS", "-H", "Authorization: Bearer any", *arguments]
        result = subprocess.run(command, capture_output=True, check=True, text=True, timeout=DEADLINE_S)
        content: dict[str, object] = json.loads(result.stdout)
        assert content["success"] is True, content
        return content

    body = {"model": MODEL, "name": "my-adapter", "description": "from the docs"}
    curl(
        "-X",
        "POST",
        f"{address}{ACCOUNT}/ai/finetunes/",
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(body),
    )
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        curl(
            "-X", "POST", f"{address}{ACCOUNT}/ai/finetunes/my-adapter/finetune-assets/",
            "-H", "Content-Type: multipart/form-data",
            "-F", f"file_name={name}", "-F", f"file=@{adapter_folder / name}",
        )  # fmt: skip
    curl(f"{address}{ACCOUNT}/ai/finetunes/")
    request = {"messages": [{"role": "user", "content": "Hello world"}], "raw": "true", "lora": "my-adapter"}
    curl("-X", "POST", address + RUN, "-d", json.dumps(request))


def test_cloudflare_python_runs_and_streams(cloudflare: Cloudflare) -> None:
    result = cloudflare.ai.run(MODEL, account_id="acc0", prompt="one two", raw=True)
    assert result["response"] == "two one"  # type: ignore[index, call-overload]
    with cloudflare.ai.with_streaming_response.run(
        MODEL, account_id="acc0", prompt="one two", raw=True, stream=True
    ) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(chunk["response"] for chunk in chunks) == "two one"


def test_cloudflare_python_creates_uploads_lists_and_uses_a_finetune(
    cloudflare: Cloudflare, adapter_folder: Path
) -> None:
    finetunes = cloudflare.ai.finetunes
    made = finetunes.create(account_id="acc0", model=MODEL, name="sdk", public=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        content = (adapter_folder / name).read_bytes()
        answer = finetunes.assets.create(made.id, account_id="acc0", file=content, file_name=name)
        assert answer is not None
    listed = finetunes.list(account_id="acc0")
    assert [item.name for item in listed] == ["sdk"]  # type: ignore[union-attr]
    public = finetunes.public.list(account_id="other", limit=10, offset=0, order_by="name")
    assert [item.id for item in public] == [made.id]
    result = cloudflare.ai.run(MODEL, account_id="acc0", prompt="one", raw=True, extra_body={"lora": made.id})
    assert result["response"].startswith("[")  # type: ignore[index, call-overload, union-attr]


def test_cloudflare_python_pages_to_the_end_of_the_model_list(cloudflare: Cloudflare) -> None:
    names = [model["name"] for model in cloudflare.ai.models.list(account_id="acc0")]  # type: ignore[index]
    assert names.count(MODEL) == 1
    assert len(names) == 1 + len(HOSTED)
    schema = cloudflare.ai.models.schema.get(account_id="acc0", model=MODEL)
    assert "oneOf" in schema.to_dict()["input"]  # type: ignore[union-attr, operator]
    assert cloudflare.ai.tasks.list(account_id="acc0")
    assert cloudflare.ai.authors.list(account_id="acc0")


def test_cloudflare_python_shows_our_errors(cloudflare: Cloudflare) -> None:
    with pytest.raises(NotFoundError) as missing:
        cloudflare.ai.run(MODEL, account_id="acc0", prompt="x", extra_body={"lora": "nobody"})
    assert missing.value.errors[0].code == 3037
    with pytest.raises(BadRequestError) as bad:
        cloudflare.ai.run(MODEL, account_id="acc0", prompt="x", temperature=9)
    assert "temperature is 9, more than 5" in bad.value.errors[0].message
