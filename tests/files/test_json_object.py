"""One JSON object, or the error that the caller asked for, which names the file and the fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from intaglio.errors import AdapterError, IntaglioError, ModelFormatError
from intaglio.files.json_object import parse_json_object, read_json_object

FAULTS = {
    "not JSON": (b"{'a': 1}", "file.json is not valid JSON"),
    "not UTF-8": (b'{"\xff": 1}', "file.json is not valid JSON"),
    "a key twice": (b'{"a": 1, "b": 2, "a": 1}', "key 'a' occurs twice"),
    "a key twice further down": (b'{"a": [{"b": 1, "b": 2}]}', "key 'b' occurs twice"),
    "NaN": (b'{"a": NaN}', "NaN is not a JSON value"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not a JSON value"),
    "a number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "file.json is not valid JSON"),
    "deep nesting": (b"[" * 500_000, "file.json is nested too deeply"),
    "a list": (b"[1]", r"file.json is \[1\]; a JSON object is needed"),
    "nothing": (b"", "file.json is not valid JSON"),
}


@pytest.mark.parametrize(("data", "complaint"), FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("error", [AdapterError, ModelFormatError])
def test_text_that_is_not_one_strict_json_object_is_refused_with_the_reason(
    data: bytes, complaint: str, error: type[IntaglioError]
) -> None:
    with pytest.raises(error, match=complaint):
        parse_json_object(data, "file.json", error)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(b'{"a": [1, null, "x"]}')
    assert read_json_object(path, 21, "file.json", AdapterError) == {"a": [1, None, "x"]}
    with pytest.raises(AdapterError, match=r"file\.json has more than 20 bytes"):
        read_json_object(path, 20, "file.json", AdapterError)


def test_a_path_that_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, complaint in (
        (tmp_path / "missing", "file.json cannot be read: No such file"),
        (tmp_path, "file.json is not a regular file"),
        (tmp_path / "pipe", "file.json is not a regular file"),
        (Path("/dev/zero"), "file.json is not a regular file"),
    ):
        with pytest.raises(ModelFormatError, match=complaint):
            read_json_object(path, 100, "file.json", ModelFormatError)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"{}")
    (tmp_path / "file.json").symlink_to("blob")
    assert read_json_object(tmp_path / "file.json", 100, "file.json", AdapterError) == {}
