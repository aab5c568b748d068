"""Random bytes in a valid form or not: the response is a 4xx, and nothing is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from intaglio.settings import Settings
from tests.api.finetunes.calls import CONFIG, FINETUNES, WEIGHTS, create, read, stored_files, upload
from tests.helpers.drawn_cases import drawn_cases

BOUNDARY = b"b0undary"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
PARTS = [
    b"--", BOUNDARY, b"\r\n", b"\r\n\r\n", b"--\r\n", b'Content-Disposition: form-data; name="file"',
    b'Content-Disposition: form-data; name="file_name"', b"Content-Type: application/octet-stream", CONFIG.encode(),
    WEIGHTS.encode(), b"\x00", b'"', b": ", b"{}",
]  # fmt: skip
ONCE_PER_CLIENT = drawn_cases(60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def finetune(client: TestClient) -> None:
    assert create(client).status_code == 200


def assert_nothing_stayed(client: TestClient, settings: Settings) -> None:
    found = read(client)
    assert found["state"] in ("awaiting files", "refused")
    assert found["files"] == []
    assert stored_files(Path(settings.data_path)) == []


@ONCE_PER_CLIENT
@given(name=st.sampled_from([CONFIG, WEIGHTS]), content=st.binary(max_size=300))
def test_files_of_random_bytes_are_refused_and_not_kept(
    client: TestClient, settings: Settings, name: str, content: bytes
) -> None:
    assert upload(client, "mine", name, content).status_code == 400
    assert_nothing_stayed(client, settings)


@ONCE_PER_CLIENT
@given(body=st.lists(st.sampled_from(PARTS) | st.binary(max_size=10), max_size=25).map(b"".join))
def test_forms_of_random_parts_are_refused_and_not_kept(client: TestClient, settings: Settings, body: bytes) -> None:
    response = client.post(f"{FINETUNES}/mine/finetune-assets", content=body, headers=MULTIPART)
    assert response.status_code == 400, response.text
    assert_nothing_stayed(client, settings)


@ONCE_PER_CLIENT
@given(kind=st.text(alphabet=st.characters(codec="latin-1", exclude_categories=["Cc"])), body=st.binary(max_size=50))
def test_random_content_types_are_refused_and_nothing_is_kept(
    client: TestClient, settings: Settings, kind: str, body: bytes
) -> None:
    headers = {"content-type": kind.encode("latin-1")}
    response = client.post(f"{FINETUNES}/mine/finetune-assets", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert_nothing_stayed(client, settings)
