"""Uploads with a hostile form: a quick response with the reason, and nothing is stored."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.api.finetunes.calls import FINETUNES, create, error_of, read
from tests.hostile.cases.forms import FORM, FORMS, VALID, HostileForm, form
from tests.hostile.data_folder import folder_contents
from tests.hostile.good_adapter import Files

CPU_SECONDS = 2.0  # of all threads of this process


@pytest.fixture(scope="module", autouse=True)
def finetune(client: TestClient) -> Iterator[None]:
    create(client, "mine")
    yield
    assert read(client)["files"] == []
    assert client.get("/health").status_code == 200


def post(client: TestClient, body: bytes, headers: dict[str, str], finetune: str = "mine", query: str = "") -> Any:
    return client.post(f"{FINETUNES}/{finetune}/finetune-assets{query}", content=body, headers=headers)


@pytest.mark.parametrize("hostile", FORMS, ids=[form.name for form in FORMS])
def test_a_hostile_form_is_refused_and_not_kept(
    client: TestClient, data: Path, good: Files, hostile: HostileForm
) -> None:
    body, before = hostile.make(good.config), folder_contents(data)
    began = time.process_time()
    response = post(client, body, hostile.headers)
    assert time.process_time() - began < CPU_SECONDS
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, 5006), response.text
    assert re.search(hostile.complaint, error["message"]), error["message"]
    assert len(error["message"]) < 1000
    assert folder_contents(data) == before


@pytest.mark.parametrize("name", VALID)
def test_an_unusual_valid_form_is_accepted(client: TestClient, good: Files, name: str) -> None:
    create(client, "odd")
    response = post(client, VALID[name](good.config), {"content-type": FORM}, "odd")
    assert response.status_code == 200, response.text
    assert read(client, "odd")["files"][0]["size"] == len(good.config)
    client.delete(f"{FINETUNES}/odd")


@pytest.mark.slow
def test_a_body_cut_at_any_byte_is_refused(client: TestClient, data: Path) -> None:
    body, before = form(b"{}"), folder_contents(data)
    for length in range(len(body) - 2):  # the last line break may be missing
        response = post(client, body[:length], {"content-type": FORM})
        assert (response.status_code, error_of(response)["code"]) == (400, 5006), length
        assert "ends before the closing boundary" in error_of(response)["message"]
    assert folder_contents(data) == before


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_a_form_is_read_the_same_in_pieces_of_any_size(client: TestClient, good: Files, size: int) -> None:
    body = form(good.config)
    create(client, "pieces")
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    response = client.post(f"{FINETUNES}/pieces/finetune-assets", content=pieces, headers={"content-type": FORM})
    assert response.status_code == 200, response.text
    client.delete(f"{FINETUNES}/pieces")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?keep_other_file=maybe", "'keep_other_file' is \"maybe\", not true or false"),
        ("?keep_other_file=2", "not true or false"),
        ("?keep_other_file=%00", "not true or false"),
        ("?keep_other_file=" + "x" * 5000, "not true or false"),
        ("?keep_other_file=true", "has no other file to pair this one with"),
        ("?keep_other_file=false&keep_other_file=true", "has no other file to pair this one with"),
    ],
    ids=["a word", "a number", "NUL", "five thousand letters", "no other file", "two answers"],
)
def test_impossible_query_values_are_refused(
    client: TestClient, data: Path, good: Files, query: str, text: str
) -> None:
    before = folder_contents(data)
    response = post(client, form(good.config), {"content-type": FORM}, query=query)
    assert (response.status_code, error_of(response)["code"]) == (400, 5006)
    assert text in error_of(response)["message"]
    assert len(error_of(response)["message"]) < 1000
    assert folder_contents(data) == before


@pytest.mark.parametrize(
    "finetune",
    [
        "nobody",
        "6f1c2f9e-3f0a-4c53-9d0b-7a3a0d3f8f11",
        "..",
        "mine/../mine",
        "mine\x00",
        "MINE",
        "mine ",
        "%2e%2e",
        "x" * 3000,
        "'; --",
    ],
    ids=[
        "a name", "an id", "the folder above", "a way up and down", "NUL", "other case", "a space", "escaped twice",
        "three thousand letters", "SQL",
    ],
)  # fmt: skip
def test_an_upload_to_an_unknown_finetune_or_file_is_not_found(
    client: TestClient, data: Path, good: Files, finetune: str
) -> None:
    before = folder_contents(data)
    response = post(client, form(good.config), {"content-type": FORM}, quote(finetune, safe=""))
    assert response.status_code == 404
    assert error_of(response)["code"] in (3037, 7000)
    assert folder_contents(data) == before
