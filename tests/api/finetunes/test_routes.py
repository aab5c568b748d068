from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi.testclient import TestClient

from intaglio.model.config import ModelConfig
from tests.api.conftest import ACCOUNT, MODEL, RUN, SECOND_MODEL
from tests.api.finetunes.calls import CONFIG, FINETUNES, WEIGHTS, create, error_of, stored_files, upload, upload_both
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.fakes import FakeLLM


def test_create_gives_back_the_finetune(client: TestClient) -> None:
    response = create(client, description="what it does", public=False)
    assert response.status_code == 200
    made = response.json()["result"]
    assert UUID(made["id"]).version == 4
    assert made["name"] == "mine"
    assert made["model"] == MODEL
    assert made["description"] == "what it does"
    assert made["public"] is False
    assert made["created_at"] == made["modified_at"]
    assert made["state"] == "awaiting files"


@pytest.mark.parametrize("path", [FINETUNES, f"{FINETUNES}/", f"{FINETUNES}?", f"{FINETUNES}/?"])
def test_the_list_is_flat_and_per_account(client: TestClient, path: str) -> None:
    create(client, "first")
    create(client, "second")
    other = "/client/v4/accounts/other/ai/finetunes"
    assert client.post(other, json={"model": MODEL, "name": "first"}).status_code == 200
    listed = client.get(path).json()["result"]
    assert [item["name"] for item in listed] == ["first", "second"]
    assert [item["name"] for item in client.get(other).json()["result"]] == ["first"]


def test_wranglers_create_is_plain_text(client: TestClient) -> None:
    body = json.dumps({"model": MODEL, "name": "mine", "description": ""})
    response = client.post(FINETUNES, content=body, headers={"content-type": "text/plain;charset=UTF-8"})
    assert response.json()["result"]["description"] == ""


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"name": "cf-public-x"}, "reserved"),
        ({"name": "Intaglio-x"}, "reserved"),
        ({"name": "public"}, "reserved"),
        ({"name": "../../etc"}, "only letters"),
        ({"name": "a/b"}, "only letters"),
        ({"name": ".hidden"}, "only letters"),
        ({"name": "a\x00b"}, "only letters"),
        ({"name": "a\n"}, "only letters"),
        ({"name": ""}, "only letters"),
        ({"name": "x" * 129}, "128 characters"),
        ({"name": str(uuid4())}, "looks like an id"),
        ({"model": "@cf/meta/llama"}, "MODEL_NOT_SUPPORTED"),
        ({"model": "@cf/google/gemma-7b-it-lora"}, "MODEL_NOT_SUPPORTED"),
        ({"name": 5}, "both strings"),
        ({"model": None}, "both strings"),
        ({"description": "x" * 10_001}, "10000 characters"),
        ({"public": "yes"}, "public"),
    ],
)
def test_an_invalid_create_is_a_400_with_the_reason(client: TestClient, fields: dict[str, Any], text: str) -> None:
    response = client.post(FINETUNES, json={"model": MODEL, "name": "mine", **fields})
    assert response.status_code == 400
    assert text in error_of(response)["message"]
    assert client.get(FINETUNES).json()["result"] == []


def test_a_name_can_be_used_once_per_account(client: TestClient) -> None:
    assert create(client).status_code == 200
    response = create(client)
    assert response.status_code == 400
    assert "already exists" in error_of(response)["message"]


def test_the_number_of_finetunes_of_an_account_is_bounded(client: TestClient) -> None:
    assert [create(client, f"n{i}").status_code for i in range(5)] == [200, 200, 200, 200, 400]
    assert "4 finetunes" in error_of(create(client, "n9"))["message"]


@pytest.mark.parametrize("by", ["name", "id"])
@pytest.mark.parametrize("order", [(CONFIG, WEIGHTS), (WEIGHTS, CONFIG)])
def test_an_adapter_is_usable_when_both_files_are_there(
    client: TestClient, llm: FakeLLM, adapter_folder: Path, by: str, order: tuple[str, str]
) -> None:
    key = create(client).json()["result"][by]
    states = []
    for name in order:
        response = upload(client, key, name, (adapter_folder / name).read_bytes())
        assert response.status_code == 200
        content = response.json()
        assert content["success"] is True
        assert content["result"]["file_name"] == name
        assert content["result"].keys() >= {"id", "bucket_name", "created_at", "finetune_id", "modified_at"}
        states.append(content["result"]["state"])
    assert states == ["awaiting files", "ready"]
    answer = client.post(RUN, json={"prompt": "x y", "raw": True, "lora": key})
    digest = answer.headers["intaglio-adapter-digest"]
    assert answer.json()["result"]["response"] == f"[{digest[:8]}] y x"
    ((ref, scale),) = [(adapter.ref, adapter.scale) for adapter in llm.submitted[-1][2]]
    assert (ref.digest, scale) == (digest, 1)
    assert sorted(path.name for path in Path(ref.folder).iterdir()) == [CONFIG, WEIGHTS]
    assert (Path(ref.folder) / WEIGHTS).read_bytes() == (adapter_folder / WEIGHTS).read_bytes()
    read = client.get(f"{FINETUNES}/{key}").json()["result"]
    assert (read["state"], read["digest"]) == ("ready", digest)


@pytest.mark.parametrize("parts", [("file", "file_name"), ("file_name", "file"), ("other", "file", "file_name")])
@pytest.mark.parametrize("filename", ["blob", "upload", WEIGHTS, "../../evil", None])
def test_part_order_and_filename_do_not_matter(
    client: TestClient, adapter_folder: Path, parts: tuple[str, ...], filename: str | None
) -> None:
    create(client)
    content = (adapter_folder / CONFIG).read_bytes()
    bodies = {"file": content, "file_name": CONFIG.encode(), "other": b"ignored"}
    body = b""
    for part in parts:
        extra = f'; filename="{filename}"' if part == "file" and filename else ""
        body += (
            f'--xyz\r\nContent-Disposition: form-data; name="{part}"{extra}\r\n\r\n'.encode() + bodies[part] + b"\r\n"
        )
    response = client.post(
        f"{FINETUNES}/mine/finetune-assets",
        content=body + b"--xyz--\r\n",
        headers={"content-type": "multipart/form-data; boundary=xyz"},
    )
    assert response.status_code == 200, response.text
    assert response.json()["result"]["file_name"] == CONFIG


FORM = {"content-type": "multipart/form-data; boundary=xyz"}
FILE_PART = b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\n{}\r\n'
NAME_PART = b'--xyz\r\nContent-Disposition: form-data; name="file_name"\r\n\r\nadapter_config.json\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "text"),
    [
        ({"content-type": "application/json"}, b"{}", "must be multipart/form-data"),
        ({}, b"", "must be multipart/form-data"),
        ({"content-type": "multipart/form-data"}, b"x", "must be multipart/form-data"),
        ({"content-type": f"multipart/form-data; boundary={'x' * 300}"}, b"x", "boundary"),
        (FORM, b"", "ends before"),
        (FORM, b"garbage", "not well-formed"),
        (FORM, FILE_PART + NAME_PART, "ends before"),
        (FORM, FILE_PART + b"--xyz--\r\n", "0 parts named 'file_name'"),
        (FORM, NAME_PART + b"--xyz--\r\n", "0 parts named 'file'"),
        (FORM, NAME_PART + FILE_PART + FILE_PART + b"--xyz--\r\n", "2 parts named 'file'"),
        (FORM, b"--xyz\r\n\r\nx\r\n--xyz--\r\n", "no usable name"),
        (FORM, FILE_PART + NAME_PART.replace(b".json", b".json" * 99) + b"--xyz--\r\n", "longer than 256"),
        (FORM, FILE_PART + NAME_PART.replace(b"_config.json", b"\xff") + b"--xyz--\r\n", "not UTF-8"),
        (FORM, FILE_PART + NAME_PART.replace(b"adapter_c", b"../c") + b"--xyz--\r\n", "file_name is '../config.json'"),
        (FORM, FILE_PART + NAME_PART.replace(b"file_name", b"x") * 1000, "more than 65536 bytes beside its file"),
        (FORM, FILE_PART + NAME_PART.replace(b"adapter_config.json", b"x") + b"--xyz--\r\n", "file_name is 'x'"),
    ],
)
def test_bad_forms_are_refused_and_nothing_is_stored(
    client: TestClient, settings: Any, headers: dict[str, str], body: bytes, text: str
) -> None:
    create(client)
    response = client.post(f"{FINETUNES}/mine/finetune-assets", content=body, headers=headers)
    assert response.status_code == 400, response.text
    assert text in error_of(response)["message"]
    assert stored_files(settings.data_path) == []
    assert client.get(f"{FINETUNES}/mine").json()["result"]["state"] == "awaiting files"


def test_an_upload_to_an_unknown_finetune_is_3037(client: TestClient) -> None:
    for name in ("nobody", str(uuid4())):
        response = upload(client, name, CONFIG, b"{}")
        assert (response.status_code, error_of(response)["code"]) == (404, 3037)


def test_a_bad_file_is_refused_and_a_corrected_one_accepted(
    client: TestClient, settings: Any, adapter_folder: Path
) -> None:
    create(client)
    config, weights = ((adapter_folder / name).read_bytes() for name in (CONFIG, WEIGHTS))
    assert upload(client, "mine", CONFIG, config).status_code == 200
    before = stored_files(settings.data_path)
    for bad in (b"", weights[:1000], b"\xff" * 8 + weights, b"not a safetensors file"):
        response = upload(client, "mine", WEIGHTS, bad)
        assert (response.status_code, error_of(response)["code"]) == (400, 5006)
        assert WEIGHTS in error_of(response)["message"]
        assert stored_files(settings.data_path) == before
    refused = client.get(f"{FINETUNES}/mine").json()["result"]
    assert refused["state"] == "refused"
    assert refused["reason"] in error_of(response)["message"]
    answer = client.post(RUN, json={"prompt": "x", "lora": "mine"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, 3039)
    assert upload(client, "mine", WEIGHTS, weights).json()["result"]["state"] == "ready"
    assert "reason" not in client.get(f"{FINETUNES}/mine").json()["result"]


def test_files_that_do_not_fit_together_are_refused_and_either_may_be_mended(
    client: TestClient, base_config: ModelConfig, tmp_path: Path
) -> None:
    create(client)
    rank_4 = write_peft_adapter(tmp_path / "4", base_config, rank=4)
    rank_8 = write_peft_adapter(tmp_path / "8", base_config, rank=8)
    assert upload(client, "mine", CONFIG, (rank_8 / CONFIG).read_bytes()).status_code == 200
    response = upload(client, "mine", WEIGHTS, (rank_4 / WEIGHTS).read_bytes())
    assert response.status_code == 400
    assert "rank" in error_of(response)["message"]
    assert upload(client, "mine", CONFIG, (rank_4 / CONFIG).read_bytes()).json()["result"]["state"] == "awaiting files"
    assert upload(client, "mine", WEIGHTS, (rank_4 / WEIGHTS).read_bytes()).json()["result"]["state"] == "ready"


@pytest.mark.parametrize("config", [b"[]", b"null", b"{", b"", b"{}", b'{"peft_type": "IA3"}', b"[" * 100_000])
def test_a_file_that_is_not_a_config_is_refused(client: TestClient, settings: Any, config: bytes) -> None:
    create(client)
    response = upload(client, "mine", CONFIG, config)
    assert (response.status_code, error_of(response)["code"]) == (400, 5006)
    assert CONFIG in error_of(response)["message"]
    assert stored_files(settings.data_path) == []


def test_two_finetunes_may_have_the_same_files(client: TestClient, adapter_folder: Path) -> None:
    digests = []
    for name in ("one", "two"):
        create(client, name)
        upload_both(client, adapter_folder, name)
        digests.append(client.post(RUN, json={"prompt": "x", "lora": name}).headers["intaglio-adapter-digest"])
    assert digests[0] == digests[1]


@pytest.mark.parametrize("have", [(), (CONFIG,), (WEIGHTS,)])
def test_a_finetune_with_a_file_missing_is_3039(
    client: TestClient, llm: FakeLLM, adapter_folder: Path, have: tuple[str, ...]
) -> None:
    create(client)
    for name in have:
        upload(client, "mine", name, (adapter_folder / name).read_bytes())
    response = client.post(RUN, json={"prompt": "x", "lora": "mine"})
    error = error_of(response)
    assert (response.status_code, error["code"]) == (400, 3039)
    for name in (CONFIG, WEIGHTS):
        assert name in error["message"]
        assert (name in error["message"].partition(":")[2].partition(":")[0]) == (name not in have)
    assert llm.submitted == []


def test_another_bases_finetune_is_refused_naming_both(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    upload_both(client, adapter_folder)
    response = client.post(f"{ACCOUNT}/ai/run/{SECOND_MODEL}", json={"prompt": "x", "lora": "mine"})
    assert response.status_code == 400
    assert MODEL in error_of(response)["message"]
    assert SECOND_MODEL in error_of(response)["message"]


def test_accounts_do_not_see_each_other_unless_public(client: TestClient, adapter_folder: Path) -> None:
    create(client)
    upload_both(client, adapter_folder)
    shared = create(client, "shared", public=True).json()["result"]
    upload_both(client, adapter_folder, "shared")
    run = RUN.replace("acc0", "other")
    assert error_of(client.post(run, json={"prompt": "x", "lora": "mine"}))["code"] == 3037
    assert error_of(client.post(run, json={"prompt": "x", "lora": "shared"}))["code"] == 3037
    assert client.post(run, json={"prompt": "x", "lora": shared["id"]}).status_code == 200
    response = upload(client, shared["id"], CONFIG, b"{}", account="/client/v4/accounts/other")
    assert response.status_code == 400
    assert "another account" in error_of(response)["message"]


def test_public_list_pages_and_sorts(client: TestClient) -> None:
    for name in ("b", "c", "a"):
        create(client, name, public=True)
    create(client, "own")

    def listed(**query: Any) -> list[str]:
        return [item["name"] for item in client.get(f"{FINETUNES}/public", params=query).json()["result"]]

    assert listed() == ["b", "c", "a"]
    assert listed(orderBy="name") == ["a", "b", "c"]
    assert listed(orderBy="name", limit=2) == ["a", "b"]
    assert listed(orderBy="name", limit=2, offset=2) == ["c"]
    assert listed(offset=9) == []
    assert listed(limit=0) == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": -1}, {"offset": "x"}, {"orderBy": "digest; drop"}, {"limit": 1001}, {"limit": ""}, {"offset": ""},
        {"orderBy": ""},
    ],
    ids=str,
)  # fmt: skip
def test_bad_list_queries_are_refused(client: TestClient, query: dict[str, Any]) -> None:
    response = client.get(f"{FINETUNES}/public", params=query)
    assert (response.status_code, error_of(response)["code"]) == (400, 5006)


def test_reading_an_unknown_finetune_is_3037(client: TestClient) -> None:
    response = client.get(f"{FINETUNES}/nobody")
    assert (response.status_code, error_of(response)["code"]) == (404, 3037)


@pytest.mark.parametrize("tricky", ["..%2f..%2fetc", "%2e%2e", "a%00b", "%ff"])
def test_path_traversal_in_names_is_not_found(client: TestClient, tricky: str) -> None:
    response = client.post(f"{FINETUNES}/{tricky}/finetune-assets", data={"file_name": CONFIG}, files={"file": b"{}"})
    assert response.status_code == 404
    assert error_of(response)["code"] in (3037, 7000)


def test_a_file_beyond_the_limit_is_413(client: TestClient, settings: Any) -> None:
    create(client)
    config = b'{"padding": "' + b"x" * (1 << 20) + b'"}'
    assert upload(client, "mine", CONFIG, config).status_code == 400
    assert stored_files(settings.data_path) == []
