"""Every case as an upload: the documented code, the reason, nothing of it kept, and the server goes on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import RUN
from tests.api.finetunes.calls import FINETUNES, create, error_of, files_of, read, upload
from tests.hostile.case import CONFIG, WEIGHTS, HonestCase, HostileCase
from tests.hostile.cases.containers import pickles
from tests.hostile.corpus import FAMILIES, HONEST_FAMILIES, one_of_each
from tests.hostile.data_folder import kept
from tests.hostile.good_adapter import Files

OTHER = {CONFIG: WEIGHTS, WEIGHTS: CONFIG}
NEEDS = {CONFIG: "needs-config", WEIGHTS: "needs-weights"}  # finetunes that have the other file, and wait for this one


@pytest.fixture(scope="module", autouse=True)
def waiting(client: TestClient, good: Files) -> Iterator[None]:
    """Two finetunes, each with the good half that the bad one should be joined to. In the end both are as usable as
    ever: the right file makes them ready.
    """
    for needed, name in NEEDS.items():
        create(client, name)
        assert upload(client, name, OTHER[needed], content_of(good, OTHER[needed])).status_code == 200
    yield
    for needed, name in NEEDS.items():
        response = upload(client, name, needed, content_of(good, needed))
        assert response.json()["result"]["state"] == "ready", response.text
    assert client.get("/health").status_code == 200


@contextmanager
def finetune_for(client: TestClient, good: Files, case: HostileCase, files: Files) -> Iterator[str]:
    """A finetune that has the case's other file: a waiting one, or one of its own where that is not the good one."""
    other = content_of(files, OTHER[case.bad])
    if other == content_of(good, OTHER[case.bad]):
        yield NEEDS[case.bad]
        return
    create(client, "own")
    assert upload(client, "own", OTHER[case.bad], other).status_code == 200
    yield "own"
    assert client.delete(f"{FINETUNES}/own").status_code == 200


def content_of(files: Files, name: str) -> bytes:
    return files.config if name == CONFIG else files.weights


@pytest.mark.parametrize("case", one_of_each(FAMILIES))
def test_a_hostile_upload_is_refused_and_not_kept(
    client: TestClient, data: Path, good: Files, case: HostileCase
) -> None:
    files = case.make(good)
    with finetune_for(client, good, case, files) as finetune:
        before = kept(data)
        response = upload(client, finetune, case.bad, content_of(files, case.bad))
        error = error_of(response)
        assert (response.status_code, error["code"]) == (400, 5006), response.text
        assert error["message"].startswith("AiError: Bad input: ")
        assert re.search(case.complaint, error["message"]), error["message"]
        assert kept(data) == before
        found = read(client, finetune)
        assert (found["state"], found["missing_files"]) == ("refused", [case.bad])
        assert found["reason"] in error["message"]
        assert list(files_of(found)) == [OTHER[case.bad]]
        answer = client.post(RUN, json={"prompt": "x", "lora": finetune})
        assert (answer.status_code, error_of(answer)["code"]) == (400, 3039)


@pytest.mark.parametrize("case", one_of_each(HONEST_FAMILIES))
def test_an_unusual_valid_upload_is_accepted(client: TestClient, good: Files, case: HonestCase) -> None:
    files = case.make(good)
    create(client, "odd")
    for name, content in ((CONFIG, files.config), (WEIGHTS, files.weights)):
        assert upload(client, "odd", name, content).status_code == 200
    assert read(client, "odd")["state"] == "ready"
    client.delete(f"{FINETUNES}/odd")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "adapter_model.bin", "adapter_model.pkl", "pytorch_model.bin"])
def test_no_pickle_is_ever_loaded(client: TestClient, data: Path, tmp_path: Path, name: str) -> None:
    trap = tmp_path / "trap"
    before = kept(data)
    for content in pickles(trap).values():
        response = upload(client, NEEDS.get(name, "needs-weights"), name, content)
        assert (response.status_code, error_of(response)["code"]) == (400, 5006)
        assert name in error_of(response)["message"]
        assert not trap.exists()
    assert kept(data) == before
