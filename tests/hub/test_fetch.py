"""References to models of the hub, against a fake of its HTTP API on loopback."""

from __future__ import annotations

import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from intaglio.errors import HubError, HubNotInstalledError, HubUnreachableError, StorageFullError
from intaglio.hub import LineProgress, fetch_model, parse_hub_reference, remote, transfer
from intaglio.hub.cache import RepositoryCache
from intaglio.hub.remote import Hub
from tests.helpers.checkpoints import tiny_config
from tests.helpers.hub import FakeHub, HubRepository

REPO = "acme/tiny"
WEIGHTS = bytes(range(256)) * 12_000  # 3 MB: several pieces of a stream
CONFIG = json.dumps(tiny_config("gemma")).encode()
FILES = {
    "README.md": b"# tiny",
    "config.json": CONFIG,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"p" * 100,
    "original/consolidated.safetensors": b"c" * 100,
    "model-f16.gguf": b"g" * 100,
}
SERVED = {"config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"}


class Recorded:
    """Progress as a test sees it."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int, int, int]] = []
        self.done = 0
        self.ended = 0

    def begin(self, model: str, num_files: int, total_bytes: int, done_bytes: int) -> None:
        self.begun.append((model, num_files, total_bytes, done_bytes))
        self.done = done_bytes

    def advance(self, num_bytes: int) -> None:
        self.done += num_bytes

    def end(self) -> None:
        self.ended += 1


@pytest.fixture
def repository(fake: FakeHub) -> HubRepository:
    return fake.add(REPO, FILES)


def fetch(hub: Hub, source: str = f"hf:{REPO}", progress: Recorded | None = None) -> Path:
    return fetch_model(parse_hub_reference(source), progress or Recorded(), hub)


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_the_files_that_are_served_are_fetched_into_the_hubs_own_cache(
    hub: Hub, repository: HubRepository, fake: FakeHub
) -> None:
    progress = Recorded()
    folder = fetch(hub, progress=progress)
    assert folder == hub.cache_dir / "models--acme--tiny" / "snapshots" / repository.commit
    assert names_in(folder) == SERVED
    assert all((folder / name).read_bytes() == FILES[name] for name in SERVED)
    assert set(fake.fetched()) == SERVED
    total = sum(len(FILES[name]) for name in SERVED)
    assert progress.begun == [(REPO, 4, total, len(CONFIG))], "the config is read before"
    assert (progress.done, progress.ended) == (total, 1)


def test_what_is_in_the_cache_is_not_fetched_again(hub: Hub, repository: HubRepository, fake: FakeHub) -> None:
    folder = fetch(hub)
    fake.requests.clear()
    progress = Recorded()
    assert fetch(hub, progress=progress) == folder
    assert fake.fetched() == []
    assert progress.begun == []


def test_huggingface_hub_finds_the_files_in_its_own_cache(hub: Hub, repository: HubRepository) -> None:
    import huggingface_hub

    folder = fetch(hub)
    found = huggingface_hub.try_to_load_from_cache(REPO, "model.safetensors", cache_dir=hub.cache_dir, revision="main")
    assert found == str(folder / "model.safetensors")


def test_a_file_of_another_program_in_the_cache_is_used(hub: Hub, repository: HubRepository, fake: FakeHub) -> None:
    import huggingface_hub

    for name in ("model.safetensors", "config.json"):
        huggingface_hub.hf_hub_download(REPO, name, cache_dir=hub.cache_dir, endpoint=fake.url)
    fake.requests.clear()
    fetch(hub)
    assert set(fake.fetched()) == SERVED - {"model.safetensors", "config.json"}


@pytest.mark.parametrize("revision", ["v1", "commit"])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, fake: FakeHub, revision: str) -> None:
    repository = fake.add(REPO, FILES, revisions=("main", "v1"))
    revision = repository.commit if revision == "commit" else revision
    assert fetch(hub, f"hf:{REPO}@{revision}").name == repository.commit


def test_all_shards_of_an_index_are_fetched(hub: Hub, fake: FakeHub) -> None:
    shards = {f"model-0000{number}-of-00002.safetensors": b"%d" % number * 10 for number in (1, 2)}
    index = json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}).encode()
    fake.add(
        REPO, {"config.json": CONFIG, "model.safetensors.index.json": index, **shards, "model-extra.safetensors": b"x"}
    )
    assert names_in(fetch(hub)) == {"config.json", "model.safetensors.index.json", *shards}


def test_all_parts_of_a_gguf_file_are_fetched_and_the_first_is_named(hub: Hub, fake: FakeHub) -> None:
    parts = {f"BF16/g-BF16-0000{number}-of-00002.gguf": b"%d" % number * 10 for number in (1, 2)}
    fake.add(REPO, {"config.json": b"{}", "g-Q4_K_M.gguf": b"q", **parts}, architecture="gemma3")
    path = fetch(hub, f"hf:{REPO}:bf16")
    assert path.name == "g-BF16-00001-of-00002.gguf"
    assert set(fake.fetched()) == set(parts)
    assert fetch(hub).name == "g-Q4_K_M.gguf", "without a quantization"


def test_an_interrupted_download_is_resumed_where_it_stopped(
    hub: Hub, repository: HubRepository, fake: FakeHub, waits: list[float]
) -> None:
    fake.breaks["model.safetensors"] = [1_200_000, 1_100_000]
    progress = Recorded()
    folder = fetch(hub, progress=progress)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [one.range for one in fake.requests if one.path.startswith("/storage/")]
    assert ranges[0] is None
    assert all(range and int(range.removeprefix("bytes=")[:-1]) > 0 for range in ranges[1:])
    assert len(ranges) == 3
    assert progress.done == progress.begun[0][2]
    assert waits == [1.0, 1.0], "an attempt that received bytes does not make the next wait longer"


def test_a_second_start_resumes_the_download_that_the_first_left(
    hub: Hub, repository: HubRepository, fake: FakeHub, waits: list[float]
) -> None:
    fake.breaks["model.safetensors"] = [2_200_000] + [0] * 20
    progress = Recorded()
    with pytest.raises(
        HubUnreachableError, match=r"download of model.safetensors stopped: .*; the bytes received are kept"
    ):
        fetch(hub, progress=progress)
    assert progress.ended == 1
    assert len(waits) == transfer.MAX_BREAKS - 1
    fake.breaks.clear()
    fake.requests.clear()
    again = Recorded()
    folder = fetch(hub, progress=again)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert again.begun[0][3] > 1_000_000, "progress begins with the bytes of the first download"
    (request,) = [one for one in fake.requests if one.path.startswith("/storage/")]
    assert request.range is not None


def test_a_server_that_ignores_ranges_sends_the_file_from_its_start(
    hub: Hub, repository: HubRepository, fake: FakeHub, waits: list[float]
) -> None:
    fake.breaks["model.safetensors"] = [1_200_000]
    fake.ignores_ranges = True
    progress = Recorded()
    assert (fetch(hub, progress=progress) / "model.safetensors").read_bytes() == WEIGHTS
    assert progress.done == progress.begun[0][2]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_file_whose_hash_is_not_the_listed_one_is_removed_and_named(
    hub: Hub, repository: HubRepository, fake: FakeHub, name: str
) -> None:
    fake.replaced[name] = bytes(reversed(FILES[name]))
    with pytest.raises(HubError, match=rf"{REPO}: {name} has the hash [0-9a-f]+, and the hub's listing says"):
        fetch(hub)
    fake.replaced.clear()
    assert (fetch(hub) / name).read_bytes() == FILES[name], "the next start fetches it again"


def test_a_file_that_is_longer_than_listed_is_refused(hub: Hub, repository: HubRepository, fake: FakeHub) -> None:
    fake.replaced["tokenizer.json"] = b"{} and more"
    with pytest.raises(HubError, match=r"tokenizer.json is longer than the 2 bytes"):
        fetch(hub)


def test_a_file_that_stays_shorter_than_listed_is_refused(
    hub: Hub, repository: HubRepository, fake: FakeHub, waits: list[float]
) -> None:
    fake.replaced["tokenizer.json"] = b"{"
    fake.ignores_ranges = True
    with pytest.raises(HubUnreachableError, match=r"tokenizer.json stopped: 1 of 2 bytes were received"):
        fetch(hub)


def test_without_the_hub_a_complete_snapshot_is_used(
    hub: Hub, repository: HubRepository, fake: FakeHub, caplog: pytest.LogCaptureFixture
) -> None:
    folder = fetch(hub)
    fake.status = 503
    with caplog.at_level(logging.WARNING, "intaglio"):
        assert fetch(hub) == folder
    assert "using the cache" in caplog.text
    assert fetch(hub, f"hf:{REPO}@{repository.commit}") == folder
    gone = Hub("http://127.0.0.1:9", hub.cache_dir)  # nothing listens there
    assert fetch(gone) == folder


def test_without_the_hub_the_older_model_is_used_if_the_newer_ones_download_broke(
    hub: Hub, repository: HubRepository, fake: FakeHub
) -> None:
    older = fetch(hub)
    fake.add(REPO, {**FILES, "model.safetensors": WEIGHTS[::-1]})
    fake.breaks["model.safetensors"] = [100_000] + [0] * 20
    with pytest.raises(HubUnreachableError, match=r"download of model.safetensors stopped"):
        fetch(hub)
    fake.status = 503
    assert fetch(hub) == older
    fake.status = None
    fake.breaks.clear()
    newer = fetch(hub)
    fake.status = 503
    assert fetch(hub) == newer != older
    (newer / "model.safetensors").unlink()
    with pytest.raises(HubUnreachableError, match=r"not complete"):
        fetch(hub)


def test_without_the_hub_a_reference_is_the_same_file_as_with_it(hub: Hub, fake: FakeHub) -> None:
    fake.add(REPO, {"g-Q4_K_M.gguf": b"q4", "g-Q8_0.gguf": b"q8"}, architecture="gemma3")
    eight = fetch(hub, f"hf:{REPO}:Q8_0")
    fake.status = 503
    assert fetch(hub, f"hf:{REPO}:Q8_0") == eight
    with pytest.raises(HubUnreachableError, match=r"has no Q4_K_M"):
        fetch(hub)
    fake.status = None
    four = fetch(hub)
    fake.status = 503
    assert (fetch(hub), fetch(hub, f"hf:{REPO}:Q8_0")) == (four, eight)


def test_offline_mode_sends_no_request_and_uses_the_cache(
    hub: Hub, repository: HubRepository, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    folder = fetch(hub)
    fake.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert fetch(hub) == folder
    assert fake.requests == []
    shutil.rmtree(hub.cache_dir)
    with pytest.raises(HubUnreachableError, match=r"HF_HUB_OFFLINE is set"):
        fetch(hub)


def test_without_the_hub_an_incomplete_snapshot_is_refused_with_what_is_missing(
    hub: Hub, repository: HubRepository, fake: FakeHub
) -> None:
    folder = fetch(hub)
    (folder / "model.safetensors").unlink()
    fake.status = 503
    with pytest.raises(
        HubUnreachableError, match=r"status 503, and the copy in .* is not complete: acme/tiny has neit"
    ):
        fetch(hub)
    shutil.rmtree(hub.cache_dir)
    with pytest.raises(HubUnreachableError, match=r"has no file of hf:acme/tiny$"):
        fetch(hub)


def test_a_repository_or_a_revision_that_does_not_exist_is_named(hub: Hub, repository: HubRepository) -> None:
    with pytest.raises(
        HubError, match=r"there is no repository acme/other at http://.* if it is private, set HF_TOKEN"
    ):
        fetch(hub, "hf:acme/other")
    with pytest.raises(HubError, match=r"acme/tiny has no revision 'v9'"):
        fetch(hub, f"hf:{REPO}@v9")


def test_a_gated_repository_says_where_its_terms_are_and_is_fetched_with_a_token(
    hub: Hub, fake: FakeHub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.add(REPO, FILES, gated=True)
    with pytest.raises(HubError, match=rf"gated: accept its terms at {fake.url}/acme/tiny, then set HF_TOKEN$"):
        fetch(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(HubError, match=r"with the account of the token in HF_TOKEN") as raised:
        fetch(hub)
    assert "hf_wrong" not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", fake.token)
    with caplog.at_level(logging.DEBUG, "intaglio"):
        assert names_in(fetch(hub)) == SERVED
    assert fake.token not in caplog.text
    stored = [one for one in fake.requests if one.path.startswith("/storage/")]
    assert stored and all(one.token is None for one in stored), "the token does not go to another host"


@pytest.mark.parametrize(
    ("files", "changes", "sentence"),
    [
        ({"config.json": b'{"model_type": "llama"}', "model.safetensors": b"x"}, {}, "model_type is 'llama'"),
        (
            {"m-Q4_K_M.gguf": b"x"},
            {"architecture": "llama"},
            "the architecture of its GGUF files is 'llama'; this server runs Gemma",
        ),
    ],
)
def test_what_is_not_a_gemma_is_refused_before_its_weights_are_fetched(
    hub: Hub, fake: FakeHub, files: dict[str, bytes], changes: dict[str, str], sentence: str
) -> None:
    fake.add(REPO, files, **changes)
    with pytest.raises(HubError, match=f"acme/tiny cannot be served: .*{sentence}"):
        fetch(hub)
    assert not {"model.safetensors", "m-Q4_K_M.gguf"} & {*fake.fetched()}


def test_a_download_that_does_not_fit_on_the_disk_is_refused_before_it_begins(
    hub: Hub, repository: HubRepository, fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=2_500_000))
    with pytest.raises(StorageFullError, match=r"acme/tiny needs 3 MB more in .*, and its disk has 2 MB free"):
        fetch(hub)
    assert "model.safetensors" not in fake.fetched()


def test_a_hub_that_lists_a_path_outside_its_folder_is_refused(hub: Hub, fake: FakeHub) -> None:
    fake.add(REPO, {**FILES, "../../evil": b"x"})
    with pytest.raises(HubError, match=r"has a file '../../evil', a path outside"):
        fetch(hub)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b'{"sha": 5}', b'{"id": "a/b", "sha": "../.."}'])
def test_a_server_that_is_not_a_hub_is_refused(hub: Hub, fake: FakeHub, answer: bytes) -> None:
    fake.api_answer = answer
    with pytest.raises(HubError, match=r"does not answer as the Hugging Face hub does|a hash in hexadecimal digits"):
        fetch(hub)


def test_two_processes_that_need_a_file_fetch_it_once(repository: HubRepository, fake: FakeHub, tmp_path: Path) -> None:
    hubs = [Hub(fake.url, tmp_path / "cache") for _ in range(2)]  # a lock is between open files, not processes
    with ThreadPoolExecutor() as threads:
        first, second = threads.map(fetch, hubs)
    assert first == second
    assert sorted(fake.fetched()) == sorted(SERVED)


def test_a_cache_that_cannot_be_written_is_named(fake: FakeHub, repository: HubRepository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HubError, match=r"acme/tiny cannot be written to .*file/models--acme--tiny: Not a directory"):
        fetch(Hub(fake.url, tmp_path / "file"))


def test_the_lock_of_a_file_is_in_the_caches_folder_of_locks(hub: Hub, repository: HubRepository) -> None:
    fetch(hub)
    locks = hub.cache_dir / ".locks" / "models--acme--tiny"
    assert len(list(locks.iterdir())) == len(SERVED)
    assert not list(RepositoryCache(hub.cache_dir, REPO).path.rglob("*incomplete*"))
    link = hub.cache_dir / "models--acme--tiny" / "snapshots" / repository.commit / "config.json"
    assert str(link.readlink()).startswith("../../blobs/")


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(HubNotInstalledError, match=r"pip install 'intaglio\[hub\]'"):
        remote.Hub()


def test_lines_have_size_speed_and_time_left() -> None:
    lines: list[str] = []
    now = [0.0]
    progress = LineProgress(lines.append, lambda: now[0])
    progress.begin("a/b", 3, 10_000_000_000, 1_000_000_000)
    for _ in range(90):
        now[0] += 1
        progress.advance(100_000_000)
    progress.end()
    assert lines[0] == "a/b: downloading 3 files, 10.0 GB, 1.0 GB already here"
    assert lines[1] == "a/b: 20% of 10.0 GB, 100.0 MB/s, about 80 s left"
    assert lines[-1] == "a/b: complete, 9.0 GB in 90 s"
    assert len(lines) == 11
