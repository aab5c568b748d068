"""Simultaneous uploads, deletes, replacements and streams on a whole server: each gets the right response."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future
from itertools import count
from pathlib import Path

import httpx
import pytest

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.helpers.paused_check import in_thread
from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import Files, good_files
from tests.hostile.tiny_server import DEADLINE_S, TinyServer, run_at_once

NUMBERS = count()

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unharmed")]


@pytest.fixture
def name() -> str:
    """A finetune name that only this test uses."""
    return f"race-{next(NUMBERS)}"


@pytest.fixture(scope="module")
def one(base: ModelConfig) -> Files:
    return good_files(base, seed=1)


@pytest.fixture(scope="module")
def two(base: ModelConfig) -> Files:
    """The files of another training; each could be paired with the other file of `one`."""
    return good_files(base, seed=2)


def digest_of(files: Files, base: ModelConfig, folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    (folder / CONFIG).write_bytes(files.config)
    (folder / WEIGHTS).write_bytes(files.weights)
    return read_peft_adapter(folder, base, AdapterLimits()).digest


def test_the_same_file_uploaded_twice_at_once_is_stored_once(
    live: TinyServer, base: ModelConfig, one: Files, name: str, tmp_path: Path
) -> None:
    live.create(name)
    assert live.upload(name, CONFIG, one.config).status_code == 200
    answers = run_at_once([lambda: live.upload(name, WEIGHTS, one.weights)] * 4)
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    found = live.read(name)
    assert (found["state"], found["version"]) == ("ready", 1)
    assert "pending" not in found
    assert live.text(name)[1] == digest_of(one, base, tmp_path)


def test_the_same_files_uploaded_to_two_finetunes_at_once_are_one_adapter(
    live: TinyServer, one: Files, name: str
) -> None:
    before = len(folder_contents(live.server.data_dir).files)
    names = [f"{name}-{n}" for n in range(4)]
    digests = run_at_once([lambda each=each: live.publish(each, one) for each in names])  # type: ignore[misc]
    assert len(set(digests)) == 1
    assert len(folder_contents(live.server.data_dir).files) <= before + 4, (
        "one copy of each file, and its name in one folder"
    )
    assert len({live.text(each) for each in names}) == 1


def test_of_two_trainings_uploaded_at_once_one_is_served_and_never_a_mixture(
    live: TinyServer, base: ModelConfig, one: Files, two: Files, name: str, tmp_path: Path
) -> None:
    live.create(name)
    assert live.upload(name, CONFIG, one.config).status_code == 200
    answers = run_at_once(
        [lambda: live.upload(name, WEIGHTS, one.weights), lambda: live.upload(name, WEIGHTS, two.weights)]
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    digests = {digest_of(files, base, tmp_path / str(n)) for n, files in enumerate((one, two))}
    found = live.read(name)
    assert found["state"] == "ready"
    assert found["digest"] in digests
    assert live.text(name)[1] == found["digest"]


def test_a_delete_ends_no_stream_and_changes_no_bit_of_it(live: TinyServer, one: Files, name: str) -> None:
    live.publish(name, one)
    expected, _ = live.text(name, 400)
    with live.stream(name) as pieces:
        text = next(pieces)
        with live.engine_stopped():  # so that the stream cannot end before the finetune is deleted
            assert live.http.delete(f"{live.finetunes}/{name}").status_code == 200
        gone = live.http.post(f"{live.server.account()}/ai/run/@local/tiny", json={"prompt": "x", "lora": name})
        assert (gone.status_code, gone.json()["errors"][0]["code"]) == (404, 3037)
        while len(text) < len(expected):
            text += next(pieces)
    assert text.startswith(expected)


def test_a_replacement_leaves_running_streams_the_old_bits(live: TinyServer, one: Files, two: Files, name: str) -> None:
    old_digest = live.publish(name, one)
    with live.stream(name) as pieces:
        text = next(pieces)
        for file_name, content in ((CONFIG, two.config), (WEIGHTS, two.weights)):
            assert live.upload(name, file_name, content).status_code == 200
        new_text, new_digest = live.text(name, 100)
        at_replacement = len(text)
        for _ in range(600):
            text += next(pieces)
    assert new_digest != old_digest
    live.publish(f"{name}-old", one)
    expected, digest = live.text(f"{name}-old", 500)
    assert digest == old_digest
    assert text.startswith(expected)
    assert len(expected) > at_replacement
    assert not new_text.startswith(expected[:50])


def upload_until_verifying(live: TinyServer, name: str, files: Files) -> Future[httpx.Response]:
    """Begin an upload, and wait until it is being verified by an engine that was stopped."""
    upload = in_thread(lambda: live.upload(name, WEIGHTS, files.weights))
    live.wait_for_step(name, "verifying")
    return upload


def test_a_delete_during_a_verification_leaves_nothing(live: TinyServer, one: Files, name: str) -> None:
    before = folder_contents(live.server.data_dir)
    live.create(name)
    assert live.upload(name, CONFIG, one.config).status_code == 200
    with live.engine_stopped():
        upload = upload_until_verifying(live, name, one)
        assert live.http.delete(f"{live.finetunes}/{name}").status_code == 200
    answer = upload.result(DEADLINE_S)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, 3037)
    assert folder_contents(live.server.data_dir) == before


def test_a_replacement_under_verification_does_not_affect_other_requests(
    live: TinyServer, one: Files, two: Files, name: str
) -> None:
    old = live.publish(name, one)
    assert live.upload(name, CONFIG, two.config).status_code == 200
    with live.engine_stopped():
        upload = upload_until_verifying(live, name, two)
        found = live.read(name)
        assert (found["state"], found["digest"]) == ("ready", old)
        assert found["pending"]["state"] == "checking"
    assert upload.result(DEADLINE_S).status_code == 200
    assert live.read(name)["digest"] != old


def test_an_engine_killed_during_a_verification_fails_that_upload_only(
    live: TinyServer, base: ModelConfig, one: Files, name: str, tmp_path: Path
) -> None:
    live.create(name)
    assert live.upload(name, CONFIG, one.config).status_code == 200
    before = folder_contents(live.server.data_dir)
    with live.engine_stopped() as pid:
        upload = upload_until_verifying(live, name, one)
        os.kill(pid, signal.SIGKILL)
    answer = upload.result(DEADLINE_S)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (500, 3043)
    assert answer.headers["retry-after"]
    assert folder_contents(live.server.data_dir) == before
    found = live.read(name)
    assert (found["state"], found["missing_files"]) == ("awaiting files", [WEIGHTS])
    live.text(None)  # is answered once the engine is back
    assert live.upload(name, WEIGHTS, one.weights).status_code == 200
    assert live.text(name)[1] == digest_of(one, base, tmp_path)


@pytest.mark.slow
def test_fifty_adapters_uploaded_at_once_are_all_served_with_their_own_weights(
    live: TinyServer, base: ModelConfig, name: str, tmp_path: Path
) -> None:
    trainings = [good_files(base, seed=100 + n) for n in range(50)]
    uploads = [lambda n=n, files=files: live.publish(f"{name}-{n}", files) for n, files in enumerate(trainings)]  # type: ignore[misc]
    digests = run_at_once(uploads)
    assert digests == [digest_of(files, base, tmp_path) for files in trainings]
    texts = run_at_once([lambda n=n: live.text(f"{name}-{n}") for n in range(50)])  # type: ignore[misc]
    assert [digest for _, digest in texts] == digests
    assert len({text for text, _ in texts}) == 50
