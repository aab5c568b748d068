"""A real full disk at every stage of an upload: nothing is lost or half stored, and the response gives the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from intaglio.api.app import create_app
from intaglio.model.config import ModelConfig
from intaglio.settings import Settings
from tests.api.conftest import RUN, fake_state
from tests.api.finetunes.calls import create, error_of, read, upload
from tests.helpers.small_disk import fill_disk, small_disk
from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import Files, good_files

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        yield disk


@pytest.fixture
def client(disk: Path, base: ModelConfig) -> Iterator[TestClient]:
    settings = Settings(data_dir=disk / "data")
    with TestClient(create_app(fake_state(settings, base))) as client:
        yield client


@pytest.fixture
def other(base: ModelConfig) -> Files:
    return good_files(base, seed=1)


def test_uploads_to_a_full_disk_are_refused_with_the_reason_and_change_nothing(
    client: TestClient, disk: Path, good: Files, other: Files
) -> None:
    create(client, "old")
    for name, content in ((CONFIG, good.config), (WEIGHTS, good.weights)):
        assert upload(client, "old", name, content).status_code == 200
    digest = read(client, "old")["digest"]
    create(client, "new")
    assert upload(client, "new", CONFIG, other.config).status_code == 200
    before, refusals = folder_contents(disk / "data"), 0
    for free in range(0, 40 * PAGE, PAGE):  # each upload gets a little further
        with fill_disk(disk, free):
            response = upload(client, "new", WEIGHTS, other.weights)
            answer = client.post(RUN, json={"prompt": "x", "lora": "old"})
            assert answer.status_code == 200, "other adapters are served"
            assert answer.headers["intaglio-adapter-digest"] == digest
            if response.status_code == 200:
                break
            refusals += 1
            assert (response.status_code, error_of(response)["code"]) == (507, 3043), response.text
            assert "disk is full" in error_of(response)["message"]
            assert folder_contents(disk / "data") == before
            found = read(client, "new")
            assert (found["state"], found["missing_files"]) == ("awaiting files", [WEIGHTS])
    assert refusals > 2, "the disk was never full"
    assert response.status_code == 200, response.text
    assert read(client, "new")["state"] == "ready"
    assert read(client, "old")["digest"] == digest


def test_a_replacement_on_a_full_disk_leaves_the_old_version(
    client: TestClient, disk: Path, good: Files, other: Files
) -> None:
    create(client, "mine")
    for name, content in ((CONFIG, good.config), (WEIGHTS, good.weights)):
        assert upload(client, "mine", name, content).status_code == 200
    digest = read(client)["digest"]
    before = folder_contents(disk / "data")
    with fill_disk(disk, 0):
        response = upload(client, "mine", WEIGHTS, other.weights, keep_other_file="true")
        assert response.status_code == 507
        assert read(client)["digest"] == digest
        assert client.delete(f"{RUN.partition('/run')[0]}/finetunes/none").status_code == 404
    assert folder_contents(disk / "data") == before
    assert upload(client, "mine", WEIGHTS, other.weights, keep_other_file="true").status_code == 200
    assert read(client)["digest"] != digest


def test_a_finetune_on_a_full_disk_is_not_created(client: TestClient, disk: Path) -> None:
    with fill_disk(disk, 0):
        responses = [create(client, f"n{n}", description="x" * 9000) for n in range(20)]
        failed = [response for response in responses if response.status_code != 200]
        assert failed, "the disk was never full"
        assert {(response.status_code, error_of(response)["code"]) for response in failed} == {(507, 3043)}
    made = [response.json()["result"]["name"] for response in responses if response.status_code == 200]
    listed = client.get(f"{RUN.partition('/run')[0]}/finetunes").json()["result"]
    assert [one["name"] for one in listed] == made
    assert create(client, "after").status_code == 200
