"""Adapters of MLX-LM and llama.cpp over HTTP: the same finetune as PEFT's files of the same numbers give."""

from __future__ import annotations

from pathlib import Path

from fastapi.testclient import TestClient

from tests.api.finetunes.calls import CONFIG, WEIGHTS, create, read, upload
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
