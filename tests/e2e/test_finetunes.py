"""Finetunes against the real server: created, downloaded, replaced while they are used, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudflare as sdk
import httpx
import pytest
from cloudflare import Cloudflare

from tests.e2e.conftest import ACCOUNT, MODEL, RUN, run_model

FINETUNES = f"{ACCOUNT}/ai/finetunes"
SDK_FINETUNES = "/accounts/acc0/ai/finetunes"
FILES = ("adapter_config.json", "adapter_model.safetensors")

# Long enough to fill blocks of the prefix cache, so that a stale block would be used if it were found.
PROMPT = "The harbour was quiet in the morning, and the boats lay side by side. " * 4
GREEDY: dict[str, Any] = {"prompt": PROMPT, "raw": True, "temperature": 0, "max_tokens": 8}


def create(http: httpx.Client, name: str) -> str:
    """A new finetune without files. Returns its id."""
    response = http.post(FINETUNES, json={"model": MODEL, "name": name})
    assert response.status_code == 200, response.text
    return str(response.json()["result"]["id"])


def upload(http: httpx.Client, finetune: str, path: Path) -> dict[str, Any]:
    """Upload one file; return the finetune."""
    form = {"data": {"file_name": path.name}, "files": {"file": path.read_bytes()}}
    response = http.post(f"{FINETUNES}/{finetune}/finetune-assets", **form)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["result"]
    return result


def upload_both(http: httpx.Client, finetune: str, folder: Path) -> None:
    for name in FILES:
        upload(http, finetune, folder / name)


def cached_tokens(result: dict[str, Any]) -> int:
    return int(result["usage"]["prompt_tokens_details"]["cached_tokens"])


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The chunks of a stream up to [DONE]."""
    for line in lines:
        if line == "data: [DONE]":
            return
        if line:
            yield json.loads(line.removeprefix("data: "))


def test_the_same_prompt_gets_the_new_adapters_completion_after_a_replacement(
    http: httpx.Client, adapter_folders: list[Path]
) -> None:
    old_folder, new_folder = adapter_folders
    create(http, "reference")
    upload_both(http, "reference", new_folder)
    wanted = run_model(http, **GREEDY, lora="reference")["response"]
    http.delete(f"{FINETUNES}/reference")

    finetune = create(http, "replaced")
    upload_both(http, finetune, old_folder)
    old = run_model(http, **GREEDY, lora="replaced")["response"]
    assert old != wanted
    again = run_model(http, **GREEDY, lora="replaced")
    assert (again["response"], cached_tokens(again) > 0) == (old, True)

    half = upload(http, "replaced", new_folder / FILES[0])
    assert (half["version"], half["pending"]["missing_files"]) == (1, [FILES[1]])
    assert run_model(http, **GREEDY, lora="replaced")["response"] == old
    assert upload(http, "replaced", new_folder / FILES[1])["version"] == 2

    other_prompt = {**GREEDY, "prompt": "Listen. " + PROMPT}
    for key in ("replaced", finetune):
        assert run_model(http, **GREEDY, lora=key)["response"] == wanted
    # A prompt that was cached with the old version is not found, and the next time it is.
    upload_both(http, "replaced", old_folder)
    old_first = run_model(http, **other_prompt, lora="replaced")
    upload_both(http, "replaced", new_folder)
    fresh, warm = (run_model(http, **other_prompt, lora="replaced") for _ in range(2))
    assert (cached_tokens(old_first), cached_tokens(fresh), cached_tokens(warm) > 0) == (0, 0, True)
    assert fresh["response"] == warm["response"] != old_first["response"]
    http.delete(f"{FINETUNES}/replaced")


@pytest.mark.slow
def test_a_running_stream_is_not_affected_by_replacement_and_delete(
    http: httpx.Client, adapter_folders: list[Path]
) -> None:
    old_folder, new_folder = adapter_folders
    create(http, "running")
    upload_both(http, "running", old_folder)
    body = {**GREEDY, "lora": "running", "max_tokens": 120}
    whole = run_model(http, **body)
    digest = http.get(f"{FINETUNES}/running").json()["result"]["digest"]
    with http.stream("POST", RUN, json={**body, "stream": True}) as response:
        chunks = events(response.iter_lines())
        text = next(chunks)["response"]
        upload_both(http, "running", new_folder)
        assert http.post(RUN, json={**body, "max_tokens": 1}).headers["intaglio-adapter-digest"] != digest
        assert http.delete(f"{FINETUNES}/running").json()["result"]["deleted"] is True
        assert http.post(RUN, json=body).status_code == 404
        rest = list(chunks)
    assert response.headers["intaglio-adapter-digest"] == digest
    assert text + "".join(chunk["response"] for chunk in rest) == whole["response"]
    assert rest[-1]["finish_reason"] == whole["finish_reason"]


@pytest.mark.slow
def test_a_deleted_adapter_is_not_found_and_its_name_is_free(http: httpx.Client, adapter_folders: list[Path]) -> None:
    texts = []
    for folder in adapter_folders:
        finetune = create(http, "reused")
        upload_both(http, "reused", folder)
        texts.append(run_model(http, **GREEDY, lora="reused")["response"])
        assert http.delete(f"{FINETUNES}/reused").status_code == 200
        for key in ("reused", finetune):
            gone = http.post(RUN, json={**GREEDY, "lora": key})
            assert (gone.status_code, gone.json()["errors"][0]["code"]) == (404, 3037)
    assert texts[0] != texts[1]


def test_cloudflare_python_downloads_replaces_and_deletes_with_its_low_level_methods(
    cloudflare: Cloudflare, http: httpx.Client, adapter_folders: list[Path]
) -> None:
    made = cloudflare.ai.finetunes.create(account_id="acc0", model=MODEL, name="by-sdk")
    for folder in adapter_folders:
        for name in FILES:
            content = (folder / name).read_bytes()
            cloudflare.ai.finetunes.assets.create(made.id, account_id="acc0", file=content, file_name=name)
    found: Any = cloudflare.get(f"{SDK_FINETUNES}/by-sdk", cast_to=dict[str, Any])
    assert (found["result"]["version"], found["result"]["state"]) == (2, "ready")
    assert [file["file_name"] for file in found["result"]["files"]] == list(FILES)
    for name in FILES:
        raw = cloudflare.get(f"{SDK_FINETUNES}/{made.id}/finetune-assets/{name}", cast_to=httpx.Response)
        assert raw.content == (adapter_folders[1] / name).read_bytes()
    with pytest.raises(sdk.BadRequestError):
        cloudflare.get(f"{SDK_FINETUNES}/{made.id}/finetune-assets/notes.txt", cast_to=httpx.Response)
    gone: Any = cloudflare.delete(f"{SDK_FINETUNES}/{made.id}", cast_to=dict[str, Any])
    assert gone["result"]["id"] == made.id
    for act in (cloudflare.delete, cloudflare.get):
        with pytest.raises(sdk.NotFoundError) as refused:
            act(f"{SDK_FINETUNES}/{made.id}", cast_to=dict[str, Any])
        assert refused.value.errors[0].code == 3037


def test_a_download_has_the_same_headers_with_get_and_head(http: httpx.Client, adapter_folders: list[Path]) -> None:
    create(http, "fetched")
    upload_both(http, "fetched", adapter_folders[0])
    path = f"{FINETUNES}/fetched/finetune-assets/{FILES[1]}"
    content = (adapter_folders[0] / FILES[1]).read_bytes()
    with http.stream("GET", path) as response:
        pieces = response.iter_bytes()
        begun = next(pieces)
        assert len(begun) < len(content)
        assert http.delete(f"{FINETUNES}/fetched").status_code == 200
        assert begun + b"".join(pieces) == content
    demo = next(item["name"] for item in http.get(f"{FINETUNES}/public").json()["result"])
    path = f"{FINETUNES}/{demo}/finetune-assets/{FILES[1]}"
    whole, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-disposition", "content-type"):
        assert head.headers[name] == whole.headers[name]
    assert http.get(path, headers={"if-none-match": whole.headers["etag"]}).status_code == 304
    assert http.delete(f"{FINETUNES}/{demo}").status_code == 400
