"""What an upload's verification showed, where it is seen, and what becomes of an upload without a verdict; rolling
back.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from intaglio import errors as tree
from intaglio.api.finetunes.verification import LoopVerifier, with_verifier
from intaglio.model.config import ModelConfig
from intaglio.request import VerifiedAdapter
from intaglio.settings import Settings
from tests.api.conftest import MODEL, RUN, SECOND_MODEL
from tests.api.finetunes.calls import (
    CONFIG,
    FINETUNES,
    WEIGHTS,
    create,
    error_of,
    read,
    stored_files,
    upload,
    upload_both,
)
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.fakes import FakeLLM
from tests.helpers.paused_check import DEADLINE_S, in_thread

VERIFICATION = {
    "verdict": "verified",
    "largest_logit_change": 0.5,
    "mean_logit_change": 0.25,
    "agreement": 1.0,
    "canary_tokens": 16,
    "seconds": 0.125,
    "scalable": True,
    "notes": [],
}


def test_the_upload_that_completes_a_pair_and_read_one_have_the_verification_and_lists_say_verified(
    client: TestClient, adapter_folder: Path
) -> None:
    made = create(client).json()["result"]
    assert (made["verified"], read(client)["verification"], read(client)["earlier"]) == (False, None, [])
    first = upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes()).json()["result"]
    assert "verification" not in first
    second = upload(client, "mine", WEIGHTS, (adapter_folder / WEIGHTS).read_bytes()).json()["result"]
    found = read(client)
    assert (
        found["verification"]
        == second["verification"]
        == VERIFICATION | {"modules": found["verification"]["modules"], "rank": 4}
    )
    assert found["verification"]["modules"] > 0
    (listed,) = client.get(FINETUNES).json()["result"]
    assert (listed["verified"], "verification" in listed) == (True, False)
    half = upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes()).json()["result"]
    assert "pending" in half and "verification" not in half  # that one is of what answers, not of what was sent


def test_the_step_is_verifying_while_the_engine_verifies(
    client: TestClient, llm: FakeLLM, adapter_folder: Path
) -> None:
    create(client)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    llm.verification_may_end.clear()
    uploading = in_thread(lambda: upload(client, "mine", WEIGHTS, (adapter_folder / WEIGHTS).read_bytes()))
    try:
        assert llm.verification_begun.wait(DEADLINE_S)
        found = read(client)
        assert (found["state"], found["check"]["step"], found["verification"]) == ("checking", "verifying", None)
        assert client.post(RUN, json={"prompt": "x"}).status_code == 200  # everybody else goes on
    finally:
        llm.verification_may_end.set()
    assert uploading.result(DEADLINE_S).json()["result"]["state"] == "ready"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (tree.EngineDeadError("the engine did not come back within 60 s"), 500, 3043),
        (tree.EngineError("the engine cannot tell"), 500, 3043),
    ],
    ids=["dead", "fault"],
)
def test_without_a_verdict_nothing_of_the_upload_is_kept_and_it_can_be_sent_again(
    client: TestClient, settings: Settings, llm: FakeLLM, adapter_folder: Path, error: tree.EngineError, status: int,
    code: int,
) -> None:  # fmt: skip
    create(client)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes())
    before = stored_files(settings.data_path)
    llm.verification_error = error
    weights = (adapter_folder / WEIGHTS).read_bytes()
    refused = upload(client, "mine", WEIGHTS, weights)
    assert (refused.status_code, error_of(refused)["code"]) == (status, code)
    assert ("retry-after" in refused.headers) == isinstance(error, tree.EngineDeadError)
    found = read(client)
    assert (found["state"], found["missing_files"], found["verification"]) == ("awaiting files", [WEIGHTS], None)
    assert stored_files(settings.data_path) == before
    llm.verification_error = None
    assert upload(client, "mine", WEIGHTS, weights).json()["result"]["state"] == "ready"


def test_an_adapter_that_is_not_verified_is_refused_with_what_was_found_and_the_old_one_answers(
    client: TestClient, llm: FakeLLM, adapter_folder: Path
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    verification = read(client)["verification"]
    llm.verification_error = tree.AdapterError("the adapter changes no logit of the canary")
    config = (adapter_folder / CONFIG).read_bytes() + b"\n"
    refused = upload(client, "mine", CONFIG, config, keep_other_file="true")
    assert (refused.status_code, error_of(refused)["code"]) == (400, 5006)
    assert "changes no logit" in error_of(refused)["message"]
    found = read(client)
    assert (found["state"], found["version"], found["verification"]) == ("ready", 1, verification)
    assert "changes no logit" in found["pending"]["reason"]


def test_an_upload_for_one_base_does_not_wait_for_the_engine_of_another(
    client: TestClient, llm: FakeLLM, adapter_folder: Path
) -> None:
    create(client, "first")
    create(client, "second", model=SECOND_MODEL)
    upload(client, "first", CONFIG, (adapter_folder / CONFIG).read_bytes())
    llm.verification_may_end.clear()  # as while that engine is starting again
    uploading = in_thread(lambda: upload(client, "first", WEIGHTS, (adapter_folder / WEIGHTS).read_bytes()))
    try:
        assert llm.verification_begun.wait(DEADLINE_S)
        upload_both(client, adapter_folder, "second")
        assert (read(client, "second")["state"], read(client, "first")["state"]) == ("ready", "checking")
    finally:
        llm.verification_may_end.set()
    assert uploading.result(DEADLINE_S).json()["result"]["state"] == "ready"


def test_a_rollback_restores_the_previous_version_with_its_verification_and_a_second_one_undoes_it(
    client: TestClient, base_config: ModelConfig, adapter_folder: Path, tmp_path: Path
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    old = read(client)
    nowhere = client.post(f"{FINETUNES}/mine/rollback")
    assert (nowhere.status_code, error_of(nowhere)["code"]) == (400, 5006)
    upload_both(client, write_peft_adapter(tmp_path, base_config, seed=7, model_type="gemma"))
    new = read(client)
    assert new["earlier"] == [{"version": 1, "digest": old["digest"]}]
    back = client.post(f"{FINETUNES}/mine/rollback/")
    assert back.status_code == 200, back.text
    found = back.json()["result"]
    assert found == read(client)
    assert (found["digest"], found["verification"], found["files"]) == (
        old["digest"],
        old["verification"],
        old["files"],
    )
    assert found["version"] == 3
    assert client.post(RUN, json={"prompt": "x", "lora": "mine"}).headers["intaglio-adapter-digest"] == old["digest"]
    again = client.post(f"{FINETUNES}/mine/rollback", json={}).json()["result"]
    assert again["digest"] == new["digest"]


def test_a_rollback_may_name_the_version_and_only_a_kept_one(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    upload_both(client, adapter_folder)
    config = (adapter_folder / CONFIG).read_bytes() + b"\n"
    upload(client, "mine", CONFIG, config, keep_other_file="true")
    assert client.post(f"{FINETUNES}/mine/rollback?version=1").json()["result"]["version"] == 3
    for wrong in ("9", "0", "-1", "one", ""):
        refused = client.post(f"{FINETUNES}/mine/rollback?version={wrong}")
        assert (refused.status_code, error_of(refused)["code"]) == (400, 5006), wrong
        assert wrong in error_of(refused)["message"] and "version" in error_of(refused)["message"]


@pytest.mark.parametrize("name", ["generation", "Version", "to"])
def test_a_rollback_refuses_an_unknown_query_parameter(client: TestClient, name: str) -> None:
    create(client)
    refused = client.post(f"{FINETUNES}/mine/rollback?{name}=1")
    assert (refused.status_code, error_of(refused)["code"]) == (400, 5006)
    assert f'"{name}"' in error_of(refused)["message"]


def test_a_version_in_the_body_of_a_rollback_is_refused_and_not_ignored(
    client: TestClient, adapter_folder: Path
) -> None:
    create(client)
    upload_both(client, adapter_folder)
    upload(client, "mine", CONFIG, (adapter_folder / CONFIG).read_bytes() + b"\n", keep_other_file="true")
    for body in ('{"version": 1}', "1", "version=1"):
        refused = client.post(f"{FINETUNES}/mine/rollback", content=body)
        assert (refused.status_code, error_of(refused)["code"]) == (400, 5006), body
    assert "?version=1" in error_of(client.post(f"{FINETUNES}/mine/rollback", json={"to": 1}))["message"]
    assert read(client)["version"] == 2


def test_only_the_owner_can_roll_back_a_finetune(client: TestClient, adapter_folder: Path) -> None:
    shared = create(client, public=True).json()["result"]
    upload_both(client, adapter_folder)
    other = FINETUNES.replace("acc0", "acc1")
    assert error_of(client.post(f"{other}/{shared['id']}/rollback"))["code"] == 5006
    assert error_of(client.post(f"{other}/mine/rollback"))["code"] == 3037
    assert client.get(f"{FINETUNES}/mine/rollback").headers["allow"] == "POST, OPTIONS"


def test_an_upload_that_is_cancelled_ends_its_verification_and_its_thread_before_the_file_goes(
    base_config: ModelConfig,
) -> None:
    llm = FakeLLM(MODEL, base_config)
    llm.verification_may_end.clear()
    ended: list[Any] = []

    def take(verify: LoopVerifier) -> VerifiedAdapter:
        try:
            return verify("/nowhere")
        except tree.EngineError as error:
            ended.append(error)
            with pytest.raises(tree.EngineError):
                verify("/nowhere")  # nor is another begun
            raise

    async def cancelled() -> None:
        uploading = asyncio.ensure_future(with_verifier(llm, take))  # type: ignore[arg-type]
        await asyncio.to_thread(llm.verification_begun.wait, DEADLINE_S)
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
        assert len(ended) == 1, "the thread has ended when the caller goes on"
        llm.verification_may_end.set()

    try:
        asyncio.run(cancelled())
    finally:
        llm.verification_may_end.set()
    assert "cut off" in str(ended[0])
