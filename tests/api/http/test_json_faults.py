from __future__ import annotations

import time

import pytest

from intaglio.api.http.json_body import parse_json
from intaglio.errors import BadInputError

FAULTS = [
    (b'{"a": NaN}', "is not JSON: NaN, which is not a JSON value, at line 1, column 7"),
    (b'{"a": -Infinity}', "is not JSON: -Infinity, which is not a JSON value, at line 1, column 8"),
    (b'{\n "a": True}', "is not JSON: True, which is not a JSON value, at line 2, column 7"),
    (b'{\n "a": tru}', 'is not JSON: unexpected "tru" at line 2, column 11'),
    (b'{"a": 1,}', "is not JSON: trailing comma in object at line 1, column 9"),
    (b'{"a": 1', "is not JSON: it ends too early, at line 1, column 8"),
    (b"{'a': 1}", "is not JSON: a key needs double quotes at line 1, column 2"),
    (b'{"a": 1} x', "is not JSON: text after the end at line 1, column 11"),
    ('{"ü": }'.encode(), 'is not JSON: unexpected "}" at line 1, column 7'),
    (b'{"a": "x\ny"}', "is not JSON: a control character, which a string has as an escape such as "
     "\\n, at line 1, column 9"),
    (b"\xef\xbb\xbf{}", "is not JSON: a byte order mark at line 1, column 1"),
    (b"prompt=hello", 'is not JSON: unexpected "prompt" at line 1, column 1'),
    (b'{"a": "\\ud800"}', "is not JSON: a string has half of a surrogate pair, such as \\ud800 alone"),
    (b'{"a": "\xff"}', "is not UTF-8: byte 7 is 0xff"),
    (b'{"a": 1e999}', "has the number 1e999, which is out of range"),
    (b'{"a": ' + b"9" * 5000 + b"}", "has the number 99999999999999999999... (5000 digits), which is out of range"),
    (b'{"a": 1, "b": {"c": 1, "c": 2}}', 'has the key "c" twice in one object; send it once'),
    (b'{"prompt": "x", "prompt": "y"}', 'has the key "prompt" twice in one object; send it once'),
    (b"[" * 100_000, "is JSON that is nested too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_what_is_not_json_is_refused_with_what_and_where(body: bytes, fault: str) -> None:
    with pytest.raises(BadInputError) as refused:
        parse_json(body)
    assert str(refused.value) == f"the body {fault}"


@pytest.mark.parametrize(
    "text", ['{"a": {"b": 1}, "b": 1}', '[{"a": 1}, {"a": 1}]', '{"a": 123456789012345678901234567890}']
)
def test_the_same_key_in_two_objects_and_long_numbers_are_read(text: str) -> None:
    assert parse_json(text)


def test_a_key_that_occurs_very_often_is_found_at_once() -> None:
    body = b"{" + b",".join(b'"%d": 0' % (n // 2) for n in range(200_000)) + b"}"
    began = time.process_time()
    with pytest.raises(BadInputError, match='the key "0" twice'):
        parse_json(body)
    assert time.process_time() - began < 5  # counting each key took hours
