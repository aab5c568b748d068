"""Examples are read whole or refused by file, line and reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from intaglio.errors import TrainingDataError
from intaglio.training.data import MAX_LINE_BYTES, read_examples

TALK = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def test_three_forms_are_read_in_order_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    file = write(tmp_path / "d.jsonl", {"prompt": "a", "completion": "b"}, "", {"messages": TALK}, {"text": "once"})
    (pair, talk, text), sha256 = read_examples(file)
    assert sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (pair.line, talk.line, text.line) == (1, 3, 4)
    assert pair.messages == ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    assert (talk.messages, text.text) == (tuple(TALK), "once")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text":', "not JSON; a line holds one whole object"),
        (r'{"text": "half a pair: \ud800 and more"}', "not JSON; a line holds one whole object"),
        ('["prompt"]', "a JSON list; an object is needed"),
        ({}, "the keys are none"),
        ({"prompt": "a"}, "the keys are 'prompt'; prompt and completion, or messages, or text are needed"),
        ({"prompt": "a", "completion": "b", "weight": 2}, "'weight'"),
        ({"prompt": "a", "text": "b"}, "'prompt', 'text'"),
        ({"prompt": 1, "completion": "b"}, "prompt is a JSON int; a string is needed"),
        ({"prompt": "a", "completion": " \n"}, "completion is empty"),
        ({"text": ""}, "text is empty"),
        ({"messages": "hello"}, "messages is a JSON str; an array is needed"),
        ({"messages": []}, "messages is empty"),
        ({"messages": TALK[:1]}, "the last message is of 'user'; the assistant's is needed"),
        ({"messages": TALK[1:]}, "the first message is the assistant's"),
        ({"messages": [*TALK, {"role": "judge", "content": "x"}]}, "message 2 has the role 'judge'"),
        ({"messages": [TALK[0], {"role": "assistant", "content": ""}]}, "an assistant message is empty"),
        ({"messages": [TALK[0], TALK[1] | {"weight": 0}]}, "message 1 has the key 'weight'; known are content, name"),
        ({"messages": [TALK[0], "hi"]}, "message 1 is a str"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value),
)
def test_a_line_that_cannot_be_used_is_refused_by_number_and_reason(tmp_path: Path, line: object, reason: str) -> None:
    file = write(tmp_path / "d.jsonl", {"text": "fine"}, line)
    with pytest.raises(TrainingDataError) as refused:
        read_examples(file)
    assert str(refused.value).startswith(f"{file}, line 2: ")
    assert reason in str(refused.value)


def test_bytes_that_are_not_utf8_are_refused_by_line_and_position(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(TrainingDataError, match="line 2: not UTF-8 at byte 10 of the line"):
        read_examples(file)


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n')
    assert [example.text for example in read_examples(file).examples] == ["a"]


def test_a_line_that_is_too_long_is_refused_with_the_bound(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_bytes(b" " * (MAX_LINE_BYTES + 1))
    with pytest.raises(TrainingDataError, match=f"line 1: longer than {MAX_LINE_BYTES} bytes"):
        read_examples(file)


@pytest.mark.parametrize("content", ["", "\n \n"], ids=["empty", "blank lines"])
def test_a_file_without_examples_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(content)
    with pytest.raises(TrainingDataError, match="holds no examples"):
        read_examples(file)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"nowhere\.jsonl cannot be read: No such file"):
        read_examples(tmp_path / "nowhere.jsonl")
