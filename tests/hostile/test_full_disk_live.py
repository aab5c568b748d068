"""A whole server, its data and its cache each on a small disk that fills up."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from intaglio.model.config import ModelConfig
from tests.helpers.small_disk import fill_disk, small_disk
from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import good_files
from tests.hostile.tiny_server import DEADLINE_S, TinyServer, tiny_server

pytestmark = pytest.mark.slow
DISK_BYTES = 8 << 20


def test_a_server_with_a_full_data_disk_refuses_uploads_and_keeps_serving(tmp_path: Path, base: ModelConfig) -> None:
    old, new = good_files(base, seed=1), good_files(base, seed=2)
    with (
        small_disk(tmp_path / "disk", DISK_BYTES) as disk,
        tiny_server(tmp_path, disk / "data") as server,
        httpx.Client(timeout=DEADLINE_S) as http,
    ):
        live = TinyServer(server, http)
        live.publish("old", old)
        expected = live.text("old")
        live.create("new")
        assert live.upload("new", CONFIG, new.config).status_code == 200
        before = folder_contents(server.data_dir)
        with fill_disk(disk, 0):
            response = live.upload("new", WEIGHTS, new.weights)
            assert (response.status_code, response.json()["errors"][0]["code"]) == (507, 3043)
            assert folder_contents(server.data_dir) == before
            assert live.text("old") == expected
        assert live.upload("new", WEIGHTS, new.weights).status_code == 200
        assert live.text("old") == expected
        assert live.text("new") != expected


def test_a_full_cache_disk_only_makes_loading_slower(tmp_path: Path, base: ModelConfig) -> None:
    """The files of the cache can be made again, so an upload needs no space there."""
    cache = ("--cache-dir", str(tmp_path / "disk" / "cache"))
    with (
        small_disk(tmp_path / "disk", DISK_BYTES) as disk,
        tiny_server(tmp_path, tmp_path / "data", *cache) as server,
        httpx.Client(timeout=DEADLINE_S) as http,
    ):
        live = TinyServer(server, http)
        digests = []
        with fill_disk(disk, 0):
            digests.append(live.publish("full", good_files(base, seed=1)))
            text = live.text("full")
        digests.append(live.publish("freed", good_files(base, seed=2)))
        assert [live.text(name)[1] for name in ("full", "freed")] == digests
        assert live.text("full") == text
        live.check_unharmed()
