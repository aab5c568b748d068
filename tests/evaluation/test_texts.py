from __future__ import annotations

import io
from pathlib import Path

import pytest

from intaglio.errors import EvaluationError
from intaglio.evaluation.texts import Text, read_texts


def test_files_and_standard_input_are_read_in_the_given_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffé\r\n".encode())  # a byte order mark is not part of the text
    name = str(tmp_path / "a.txt")
    assert read_texts([name, "-"], io.BytesIO(b"two")) == [Text(name, "é\r\n"), Text("<stdin>", "two")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"ab\xff", r"is not UTF-8: byte 2 \(invalid start byte\)"),
        ("text".encode("utf-16"), "is not UTF-8: byte 0"),
    ],
)
def test_a_text_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(EvaluationError, match=rf"text\.txt {message}"):
        read_texts([str(file)])
    with pytest.raises(EvaluationError, match=f"<stdin> {message}"):
        read_texts(["-"], io.BytesIO(content))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"nowhere\.txt cannot be read: No such file"):
        read_texts([str(tmp_path / "nowhere.txt")])
    with pytest.raises(EvaluationError, match="is not a regular file"):
        read_texts([str(tmp_path)])


def test_standard_input_can_be_given_once() -> None:
    with pytest.raises(EvaluationError, match="given twice"):
        read_texts(["-", "-"], io.BytesIO(b"x"))
