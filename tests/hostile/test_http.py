"""Every case as an upload: the documented code and the reason; nothing is stored, and the server keeps running."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import RUN
from tests.api.finetunes.calls import FINETUNES, create, error_of, files_of, read, upload
from tests.hostile.case import CONFIG, WEIGHTS, HostileCase, ValidCase
from tests.hostile.cases.containers import pickles
from tests.hostile.corpus import FAMILIES, VALID_FAMILIES, first_of_each_family
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import Files

OTHER = {CONFIG: WEIGHTS, WEIGHTS: CONFIG}
NEEDS = {CONFIG: "needs-config", WEIGHTS: "needs-weights"}  # finetunes that have the other file only


@pytest.fixture(scope="module", autouse=True)
def waiting(client: TestClient, good: Files) -> Iterator[None]:
    """Two finetunes, each with one valid file. At the end the other valid file makes each of them ready."""
    for needed, name in NEEDS.items():
        create(client, name)
        assert upload(client, name, OTHER[needed], bytes_of(good, OTHER[needed])).status_code == 200
    yield
    for needed, name in NEEDS.items():
        response = upload(client, name, needed, bytes_of(good, needed))
        assert response.json()["result"]["state"] == "ready", response.text
    assert client.get("/health").status_code == 200


@contextmanager
def finetune_for(client: TestClient, good: Files, case: HostileCase, files: Files) -> Iterator[str]:
    """A finetune that has the case's other file: one of the two above if that file is the valid one, else a new one."""
    other = bytes_of(files, OTHER[case.bad])
    if other == bytes_of(good, OTHER[case.bad]):
        yield NEEDS[case.bad]
        return
    create(client, "own")
    assert upload(client, "own", OTHER[case.bad], other).status_code == 200
    yield "own"
    assert client.delete(f"{FINETUNES}/own").status_code == 200


def bytes_of(files: Files, name: str) -> bytes:
    return files.config if name == CONFIG else files.weights


@pytest.mark.parametrize("case", first_of_each_family(FAMILIES))
def test_a_hostile_upload_is_refused_and_not_kept(
    client: TestClient, data: Path, good: Files, case: HostileCase
) -> None:
    files = case.make(good)
    with finetune_for(client, good, case, files) as finetune:
        before = folder_contents(data)
        response = upload(client, finetune, case.bad, bytes_of(files, case.bad))
        error = error_of(response)
        assert (response.status_code, error["code"]) == (400, 5006), response.text
        assert error["message"].startswith("AiError: Bad input: ")
        assert re.search(case.complaint, error["message"]), error["message"]
        assert folder_contents(data) == before
        found = read(client, finetune)
        assert (found["state"], found["missing_files"]) == ("refused", [case.bad])
        assert found["reason"] in error["message"]
        assert list(files_of(found)) == [OTHER[case.bad]]
        answer = client.post(RUN, json={"prompt": "x", "lora": finetune})
        assert (answer.status_code, error_of(answer)["code"]) == (400, 3039)


@pytest.mark.parametrize("case", first_of_each_family(VALID_FAMILIES))
def test_an_unusual_valid_upload_is_accepted(client: TestClient, good: Files, case: ValidCase) -> None:
    files = case.make(good)
    create(client, "odd")
    for name, content in ((CONFIG, files.config), (WEIGHTS, files.weights)):
        assert upload(client, "odd", name, content).status_code == 200
    assert read(client, "odd")["state"] == "ready"
    client.delete(f"{FINETUNES}/odd")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "adapter_model.bin", "adapter_model.pkl", "pytorch_model.bin"])
def test_no_pickle_is_ever_loaded(client: TestClient, data: Path, tmp_path: Path, name: str) -> None:
    trap = tmp_path / "trap"
    before = folder_contents(data)
    for content in pickles(trap).values():
        response = upload(client, NEEDS.get(name, "needs-weights"), name, content)
        assert (response.status_code, error_of(response)["code"]) == (400, 5006)
        assert name in error_of(response)["message"]
        assert not trap.exists()
    assert folder_contents(data) == before
