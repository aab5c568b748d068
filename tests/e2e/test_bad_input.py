"""Bad input gets the documented code and a reason; nothing is stored and the server keeps running."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from intaglio.model.config import config_from_hf
from tests.e2e.conftest import ACCOUNT, MODEL, RUN, run_model
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import tiny_config
from tests.helpers.servers import LiveServer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FINETUNES = f"{ACCOUNT}/ai/finetunes"


@pytest.fixture(autouse=True)
def unharmed(http: httpx.Client) -> Iterator[None]:
    """After each test the server is still healthy."""
    yield
    assert http.get("/health").status_code == 200


@pytest.fixture
def nothing_stored(live_server: LiveServer) -> Iterator[None]:
    """After the test the data folder has the same files as before."""
    before = stored(live_server)
    yield
    assert stored(live_server) == before


def stored(server: LiveServer) -> list[str]:
    folders = [server.data_dir / name for name in ("blobs", "incoming", "adapters")]
    return sorted(str(path) for folder in folders for path in folder.rglob("*"))


def error_of(response: httpx.Response, status: int, code: int) -> str:
    """The message of an error response, which must have this status and code."""
    content = response.json()
    assert content["success"] is False
    (error,) = content["errors"]
    assert (response.status_code, error["code"]) == (status, code), content
    message: str = error["message"]
    return message


BODIES: list[tuple[bytes, int, int, str]] = [
    (b"", 400, 3003, "no body"),
    (b"not JSON", 400, 5006, "not JSON"),
    (b"[1, 2]", 400, 5006, "the body is [1, 2]; a JSON object is needed"),
    (b'{"prompt": 5}', 400, 5006, "prompt is 5; a string is needed"),
    (b'{"prompt": "x", "temperature": 5.01}', 400, 5006, "temperature is 5.01, more than 5"),
    (b'{"prompt": "x", "top_k": 51}', 400, 5006, "top_k is 51, more than 50"),
    (b'{"prompt": "x", "max_tokens": -1}', 400, 5006, "max_tokens is -1, less than 0"),
    (b'{"prompt": "x", "seed": NaN}', 400, 5006, "not JSON"),
    (b'{"prompt": "x", "temperature": -Infinity}', 400, 5006, "not JSON"),
    (b'{"prompt": "\xc3\x28"}', 400, 5006, "not UTF-8"),
    (b'{"prompt": "\\udfff"}', 400, 5006, "not JSON"),
    (b'{"prompt": "' + b"x" * 1_000_000 + b'"}', 413, 3006, "1000000 bytes"),
    (b"[" * 100_000 + b"]" * 100_000, 400, 5006, "nested too deeply"),
    (b'{"x":' * 100_000 + b"1" + b"}" * 100_000, 400, 5006, "nested too deeply"),
    (b'{"messages": []}', 400, 5006, "messages is empty"),
    (b'{"messages": [{"role": "wizard", "content": "x"}]}', 400, 5006, "wizard"),
    (b'{"messages": [{"role": "user", "content": null}]}', 400, 5006, "message 0"),
    (b'{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', 400, 5006, "image_url"),
    (b'{"prompt": "x", "lora": "nobody"}', 404, 3037, "Finetune nobody not found"),
    (b'{"prompt": "x", "lora": "../../../etc/passwd"}', 404, 3037, "not found"),
    (b'{"prompt": "x", "max_tokens": 99999999}', 413, 3010, "exceeded this model context window limit (32768)"),
    (json.dumps({"prompt": "word " * 40_000, "max_tokens": 1}).encode(), 413, 3010, "(40"),
]  # fmt: skip


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(("body", "status", "code", "text"), BODIES)
def test_bad_bodies_are_refused_with_the_documented_code(
    http: httpx.Client, body: bytes, status: int, code: int, text: str, streamed: bool
) -> None:
    response = http.post(RUN, content=body, params={"stream": "true"} if streamed else {})
    assert text in error_of(response, status, code)


def test_unknown_models_are_refused_and_the_7b_says_how_to_add_it(http: httpx.Client) -> None:
    for model in ("@cf/google/gemma-99b", "../../etc", "x" * 1000):
        response = http.post(f"{ACCOUNT}/ai/run/{model}", json={"prompt": "x"})
        assert response.json()["errors"][0]["code"] in (5007, 7000, 7003)
    response = http.post(f"{ACCOUNT}/ai/run/@cf/google/gemma-7b-it-lora", json={"prompt": "x"})
    assert "--model '@cf/google/gemma-7b-it-lora=hf:google/gemma-7b-it'" in error_of(response, 400, 5007)


NUMBERS = count()


@pytest.fixture
def finetune(http: httpx.Client) -> str:
    """The name of a new finetune without files, in an account of its own."""
    name = f"bad-{next(NUMBERS)}"
    response = http.post(FINETUNES, json={"model": MODEL, "name": name})
    assert response.status_code == 200, response.text
    return name


def upload(http: httpx.Client, finetune: str, name: str, content: bytes) -> httpx.Response:
    return http.post(
        f"{FINETUNES}/{finetune}/finetune-assets", data={"file_name": name}, files={"file": ("blob", content)}
    )


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file with any header. `length` is written as its size, if given."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


def edited(change: Callable[[dict[str, Any], bytearray], None]) -> Callable[[bytes], bytes]:
    """A good file with something changed in its header or data."""

    def edit(good: bytes) -> bytes:
        size = struct.unpack("<Q", good[:8])[0]
        header, data = json.loads(good[8 : 8 + size]), bytearray(good[8 + size :])
        change(header, data)
        return safetensors(header, bytes(data))

    return edit


def overlap(header: dict[str, Any], _data: bytearray) -> None:
    first, second = sorted(name for name in header if name != "__metadata__")[:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]
    header[second]["shape"] = header[first]["shape"]


def set_value(bits: bytes) -> Callable[[dict[str, Any], bytearray], None]:
    def change(header: dict[str, Any], data: bytearray) -> None:
        start = header[A]["data_offsets"][0]
        data[start : start + len(bits)] = bits

    return change


def out_of_bounds(header: dict[str, Any], data: bytearray) -> None:
    header[A]["data_offsets"] = [len(data), len(data) + 2 * header[A]["shape"][0] * header[A]["shape"][1]]


def half_pair(header: dict[str, Any], _data: bytearray) -> None:
    header[B.replace("layers.0", "layers.99")] = header.pop(B)


def unknown_tensor(header: dict[str, Any], _data: bytearray) -> None:
    header["base_model.model.model.layers.0.self_attn.qkv_proj.lora_A.weight"] = header.pop(A)


BAD_WEIGHTS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("empty", lambda good: b""),
    ("truncated", lambda good: good[:-100]),
    ("half a header", lambda good: good[:50]),
    ("longer than it says", lambda good: good + b"\x00"),
    ("a 2 GB header", lambda good: safetensors({}, length=2 << 30)),
    ("a header length beyond 63 bits", lambda good: b"\xff" * 8 + good[8:]),
    ("a header that is not JSON", lambda good: safetensors(b"{" * 100)),
    ("a header that is an array", lambda good: safetensors([])),
    ("no tensors", lambda good: safetensors({})),
    ("overlapping tensors", edited(overlap)),
    ("offsets out of bounds", edited(out_of_bounds)),
    ("NaN", edited(set_value(b"\xc0\x7f"))),
    ("Inf", edited(set_value(b"\x80\x7f"))),
    ("half a pair", edited(half_pair)),
    ("a tensor that no Gemma has", edited(unknown_tensor)),
    ("a pickle", lambda good: b"\x80\x04\x95" + b"\x00" * 64),
]


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(("what", "make"), BAD_WEIGHTS, ids=[what for what, _ in BAD_WEIGHTS])
def test_bad_weights_are_refused_and_never_served(
    http: httpx.Client, finetune: str, adapter_folders: list[Path], what: str, make: Callable[[bytes], bytes]
) -> None:
    bad = make((adapter_folders[0] / WEIGHTS).read_bytes())
    assert WEIGHTS in error_of(upload(http, finetune, WEIGHTS, bad), 400, 5006)
    response = http.post(RUN, json={"prompt": "x", "lora": finetune})
    message = error_of(response, 400, 3039)
    assert CONFIG in message
    assert WEIGHTS in message


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"5", b"", b"{", b"{}", b"\xff{}", b'{"peft_type": "LOHA", "r": 4}', b"[" * 200_000]
)
def test_files_that_are_not_configs_are_refused(http: httpx.Client, finetune: str, content: bytes) -> None:
    assert CONFIG in error_of(upload(http, finetune, CONFIG, content), 400, 5006)


def test_an_adapter_of_another_shape_is_refused_naming_the_tensor(
    http: httpx.Client, live_server: LiveServer, finetune: str, tmp_path: Path
) -> None:
    folder = write_peft_adapter(tmp_path, config_from_hf(tiny_config("gemma")))
    response = upload(http, finetune, WEIGHTS, (folder / WEIGHTS).read_bytes())
    assert response.status_code == 200, "alone it is a good file"
    before = stored(live_server)
    message = error_of(upload(http, finetune, CONFIG, (folder / CONFIG).read_bytes()), 400, 5006)
    assert "lora_A" in message or "lora_B" in message
    assert "shape" in message
    assert stored(live_server) == before


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "a\x00b", "", "cf-public-x", "intaglio-x"])
def test_path_tricks_in_names_are_refused(http: httpx.Client, name: str) -> None:
    error_of(http.post(FINETUNES, json={"model": MODEL, "name": name}), 400, 5006)


@pytest.mark.usefixtures("nothing_stored")
@pytest.mark.parametrize(
    "name", ["../adapter_config.json", "/etc/passwd", "model.safetensors", "", "adapter_model.bin"]
)
def test_path_tricks_in_file_names_are_refused(http: httpx.Client, finetune: str, name: str) -> None:
    assert "file_name" in error_of(upload(http, finetune, name, b"{}"), 400, 5006)


def test_the_model_still_generates_after_the_bad_input(http: httpx.Client) -> None:
    assert run_model(http, prompt="The capital of France is", raw=True, max_tokens=2, temperature=0)["response"]
