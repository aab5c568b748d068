"""Publishing a folder as a finetune, and every error on the way."""

from __future__ import annotations

import itertools
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from intaglio.api.state import ServerState
from intaglio.client import ADAPTER_FILES, Connection, Finetunes, check_publishable, publish
from intaglio.errors import AdapterError, FinetuneError, ServerRefusedError
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE
from intaglio.model.config import ModelConfig
from tests.api.conftest import MODEL, SECOND_MODEL
from tests.client.conftest import TOKEN
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.gguf_adapters import write_gguf_adapter
from tests.helpers.mlx_adapters import write_mlx_adapter


@pytest.fixture
def given(url: str) -> dict[str, Any]:
    return {"url": url, "account": "acc0", "token": TOKEN, "name": "mine", "model": MODEL}


def test_client_and_server_use_the_same_file_names() -> None:
    assert ADAPTER_FILES == (CONFIG_FILE, WEIGHTS_FILE)


def test_a_new_name_becomes_a_finetune_and_a_known_one_gets_a_version(
    given: dict[str, Any], folders: list[Path]
) -> None:
    first = publish(folders[0], **given, description="what it does", public=True)
    assert (first["state"], first["version"], first["verification"]["verdict"]) == ("ready", 1, "verified")
    assert (first["description"], first["public"], first["model"]) == ("what it does", True, MODEL)
    second = publish(folders[1], **given)
    assert (second["id"], second["version"]) == (first["id"], 2)
    assert second["digest"] != first["digest"]
    again = publish(folders[1], **given, description="what it does", public=True)
    assert (again["version"], again["digest"], again.get("pending")) == (2, second["digest"], None)


def test_folders_of_mlx_and_gguf_files_are_published_as_the_same_adapter(
    given: dict[str, Any], base_config: ModelConfig, tmp_path: Path
) -> None:
    peft = publish(write_peft_adapter(tmp_path / "peft", base_config, rank=4, alpha=80), **given)
    mlx = publish(write_mlx_adapter(tmp_path / "mlx", base_config, rank=4, scale=20.0), **given | {"name": "mlx"})
    path = write_gguf_adapter(tmp_path / "lora.gguf", base_config, rank=4, alpha=80.0)
    gguf = publish(path, **given | {"name": "gguf"})
    assert peft["digest"] == mlx["digest"] == gguf["digest"]
    assert publish(path, **given | {"name": "gguf"})["version"] == 1


@pytest.mark.parametrize("waiting", ADAPTER_FILES)
def test_a_file_of_an_earlier_upload_is_not_paired_with_a_new_one(
    given: dict[str, Any], folders: list[Path], waiting: str, tmp_path: Path
) -> None:
    with Connection(given["url"], "acc0", TOKEN) as connection:
        finetunes = Finetunes(connection)
        finetunes.create(name="mine", model=MODEL)
        finetunes.upload("mine", folders[1] / waiting)
        first = publish(folders[0], **given)
        assert first["version"] == 1
        finetunes.upload("mine", folders[1] / waiting)
        assert finetunes.read("mine")["pending"]["files"][0]["file_name"] == waiting
    second = publish(folders[0], **given)
    assert (second["digest"], second.get("pending")) == (first["digest"], None)
    shutil.copy(folders[0] / CONFIG_FILE, tmp_path)  # trained again with the same settings: not a repeated upload
    shutil.copy(folders[1] / WEIGHTS_FILE, tmp_path)
    third = publish(tmp_path, **given)
    assert (third["version"], third.get("pending")) == (2, None)


def test_progress_is_reported_while_files_are_read_in_pieces(given: dict[str, Any], folders: list[Path]) -> None:
    reports: list[tuple[str, int, int | None]] = []
    publish(folders[0], **given, progress=lambda *report: reports.append(report))
    for name in ADAPTER_FILES:
        size = (folders[0] / name).stat().st_size
        own = [(done, total) for file_name, done, total in reports if file_name == name]
        assert own[-1] == (size, size)
        assert own == sorted(own)
    (size,) = {total for name, _, total in reports if name == WEIGHTS_FILE}
    steps = [done for name, done, _ in reports if name == WEIGHTS_FILE]
    assert size is not None
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 1 << 16


def test_a_refused_adapter_raises_the_servers_reason(
    given: dict[str, Any], folders: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(folders[0], tmp_path / "bad")
    (tmp_path / "bad" / WEIGHTS_FILE).write_bytes(b"not safetensors")
    with pytest.raises(ServerRefusedError, match=r"^adapter_model.safetensors: ") as refused:
        publish(tmp_path / "bad", **given)
    assert (refused.value.status, refused.value.code) == (400, 5006)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"description": "another"}, "description 'first', which cannot be changed to 'another'"),
        ({"public": True}, "public False, which cannot be changed to True"),
        ({"model": SECOND_MODEL}, f"model '{MODEL}', which cannot be changed to '{SECOND_MODEL}'"),
    ],
)
def test_changing_base_or_visibility_of_a_finetune_is_refused_before_anything_is_sent(
    given: dict[str, Any], folders: list[Path], fields: dict[str, Any], said: str
) -> None:
    publish(folders[0], **given, description="first", public=False)
    for ask in (check_publishable, partial(publish, folders[1])):
        with pytest.raises(FinetuneError, match="delete it first") as refused:
            ask(**{**given, **fields})
        assert said in str(refused.value)
    with Connection(given["url"], "acc0", TOKEN) as connection:
        assert Finetunes(connection).read("mine")["version"] == 1


def test_a_new_finetune_needs_a_base_where_the_server_has_several(
    given: dict[str, Any], state: ServerState, folders: list[Path]
) -> None:
    for ask in (check_publishable, partial(publish, folders[0])):
        with pytest.raises(FinetuneError, match=f"2 base models.*{MODEL}"):
            ask(**{**given, "model": None})
        with pytest.raises(FinetuneError, match=f"no weights for '@cf/x'; it has {MODEL}"):
            ask(**{**given, "model": "@cf/x"})
    del state.models[SECOND_MODEL]
    assert publish(folders[0], **{**given, "model": None})["model"] == MODEL


def test_the_check_before_publishing_needs_the_token_and_changes_nothing(given: dict[str, Any]) -> None:
    check_publishable(**given)
    with pytest.raises(ServerRefusedError) as refused:
        check_publishable(**{**given, "token": None})
    assert refused.value.status == 401
    with Connection(given["url"], "acc0", TOKEN) as connection:
        assert Finetunes(connection).list_own() == []


def test_a_folder_without_a_file_is_refused_before_the_server_is_asked(folders: list[Path], tmp_path: Path) -> None:
    shutil.copy(folders[0] / CONFIG_FILE, tmp_path)
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors"):
        publish(tmp_path, url="http://127.0.0.1:1", name="mine")
