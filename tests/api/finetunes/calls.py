"""Calls of the finetune routes as the tests make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from tests.api.conftest import ACCOUNT, MODEL

FINETUNES = f"{ACCOUNT}/ai/finetunes"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def create(client: TestClient, name: str = "mine", **fields: Any) -> Any:
    return client.post(FINETUNES, json={"model": MODEL, "name": name, **fields})


def upload(client: TestClient, finetune: str, name: str, content: bytes, account: str = ACCOUNT, **query: str) -> Any:
    return client.post(
        f"{account}/ai/finetunes/{finetune}/finetune-assets/",
        data={"file_name": name},
        files={"file": ("blob", content)},
        params=query,
    )


def upload_both(client: TestClient, folder: Path, finetune: str = "mine") -> None:
    for name in (CONFIG, WEIGHTS):
        assert upload(client, finetune, name, (folder / name).read_bytes()).status_code == 200


def read(client: TestClient, finetune: str = "mine", account: str = ACCOUNT) -> dict[str, Any]:
    """A finetune as read-one has it; it must be there."""
    response = client.get(f"{account}/ai/finetunes/{finetune}")
    assert response.status_code == 200, response.text
    result: dict[str, Any] = response.json()["result"]
    return result


def error_of(response: Any) -> dict[str, Any]:
    (error,) = response.json()["errors"]
    assert response.json()["success"] is False
    return error  # type: ignore[no-any-return]


def stored_files(settings_data: Path) -> list[str]:
    """What lies in the store: file names below blobs/, incoming/ and adapters/."""
    folders = [settings_data / name for name in ("blobs", "incoming", "adapters")]
    return sorted(path.name for folder in folders for path in folder.rglob("*") if path.is_file())


def files_of(finetune: dict[str, Any]) -> dict[str, str]:
    """SHA-256 by file name."""
    return {file["file_name"]: file["sha256"] for file in finetune["files"]}
