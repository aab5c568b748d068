"""Adapters of MLX-LM and llama.cpp over HTTP: the same finetune as PEFT's files of the same numbers give."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.finetunes.calls import CONFIG, WEIGHTS, create, error_of, read, upload
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.fakes import FakeLLM
from tests.helpers.gguf_adapters import write_gguf_adapter
from tests.helpers.mlx_adapters import write_mlx_adapter


def ready_digest(client: TestClient, name: str) -> str:
    found = read(client, name)
    assert found["state"] == "ready"
    assert [file["file_name"] for file in found["files"]] == [CONFIG, WEIGHTS]
    return str(found["digest"])


def test_a_gguf_adapter_is_one_upload_and_becomes_pefts_two_files(
    client: TestClient, llm: FakeLLM, tmp_path: Path
) -> None:
    peft = write_peft_adapter(tmp_path / "peft", llm.config, rank=4, alpha=8)
    create(client, "peft")
    for name in (CONFIG, WEIGHTS):
        upload(client, "peft", name, (peft / name).read_bytes())
    path = write_gguf_adapter(tmp_path / "mine.gguf", llm.config, rank=4, alpha=8.0)
    create(client, "mine")
    done = upload(client, "mine", path.name, path.read_bytes()).json()["result"]
    assert (done["file_name"], done["state"]) == (WEIGHTS, "ready")
    assert done["id"] == next(file["sha256"] for file in read(client, "mine")["files"] if file["file_name"] == WEIGHTS)
    assert ready_digest(client, "mine") == ready_digest(client, "peft")
    again = upload(client, "mine", path.name, path.read_bytes()).json()["result"]
    assert (again["state"], again["version"]) == ("ready", 1)
    other = write_gguf_adapter(tmp_path / "other.gguf", llm.config, rank=4, alpha=4.0)
    assert upload(client, "mine", other.name, other.read_bytes()).json()["result"]["version"] == 2


def test_a_gguf_adapter_is_not_paired_with_a_file_that_waits(client: TestClient, llm: FakeLLM, tmp_path: Path) -> None:
    peft = write_peft_adapter(tmp_path / "peft", llm.config, rank=2)
    path = write_gguf_adapter(tmp_path / "mine.gguf", llm.config, rank=4, alpha=8.0)
    for waiting in (CONFIG, WEIGHTS):
        create(client, f"after-{waiting[:9]}".replace("_", "-"))
        name = f"after-{waiting[:9]}".replace("_", "-")
        upload(client, name, waiting, (peft / waiting).read_bytes())
        assert upload(client, name, path.name, path.read_bytes()).status_code == 200
        assert read(client, name)["verification"]["rank"] == 4
        client.delete(f"/client/v4/accounts/local/ai/finetunes/{name}")


def test_another_gguf_file_is_refused_with_what_it_is(client: TestClient, llm: FakeLLM, tmp_path: Path) -> None:
    create(client, "mine")
    model = write_gguf_adapter(tmp_path / "model.gguf", llm.config, metadata={"general.type": "model"})
    refused = upload(client, "mine", model.name, model.read_bytes())
    assert refused.status_code == 400
    assert "general.type is 'model', not 'adapter'" in refused.text
    assert "the GGUF file: not a GGUF file" in upload(client, "mine", "x.gguf", b"x" * 100).text
    assert "begins" in upload(client, "mine", "x.gguf", b"x" * 100).text


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("mine.gguf", b"x" * 100, "the GGUF file: not a GGUF file"),
        ("adapter_model.bin", b"\x80\x02}q\x00.", "'adapter_model.bin' is a pickle, as torch.save writes"),
        ("adapter.zip", b"PK\x03\x04" + bytes(60), "'adapter.zip' is a zip archive; unpack it"),
        (WEIGHTS, b"GGUF" + bytes(60), "is a GGUF file; send a GGUF adapter under a name that ends in .gguf"),
        ("adapters.safetensors", b"PK\x03\x04" + bytes(60), "is a zip archive; unpack it"),
    ],
)
def test_the_finetune_says_why_a_file_of_another_kind_was_refused(
    client: TestClient, llm: FakeLLM, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    create(client, "mine")
    refused = upload(client, "mine", name, content)
    assert (refused.status_code, error_of(refused)["code"]) == (400, 5006)
    found = read(client, "mine")
    assert found["state"] == "refused"
    assert reason in found["reason"]
    assert found["reason"] in error_of(refused)["message"]
    assert found["files"] == []
    path = write_gguf_adapter(tmp_path / "mine.gguf", llm.config)
    assert upload(client, "mine", path.name, path.read_bytes()).status_code == 200
    assert read(client, "mine")["state"] == "ready", "a later upload is not held back"
    assert upload(client, "mine", name, content).status_code == 400
    found = read(client, "mine")
    assert (found["state"], found["pending"]["state"]) == ("ready", "refused"), "the version before serves on"
    again = upload(client, "mine", path.name, path.read_bytes())
    assert (again.status_code, read(client, "mine")["state"]) == (200, "ready")


def test_mlx_files_are_taken_under_their_own_names(client: TestClient, llm: FakeLLM, tmp_path: Path) -> None:
    peft = write_peft_adapter(tmp_path / "peft", llm.config, rank=4, alpha=80)
    mlx = write_mlx_adapter(tmp_path / "mlx", llm.config, rank=4, scale=20.0)
    create(client, "peft")
    create(client, "mlx")
    for name in (CONFIG, WEIGHTS):
        upload(client, "peft", name, (peft / name).read_bytes())
    for name in (CONFIG, "adapters.safetensors"):
        done = upload(client, "mlx", name, (mlx / name).read_bytes())
        assert done.status_code == 200, done.text
    assert done.json()["result"]["file_name"] == WEIGHTS
    assert ready_digest(client, "mlx") == ready_digest(client, "peft")
