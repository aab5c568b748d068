from __future__ import annotations

from uuid import UUID

import pytest

from intaglio.errors import FinetuneError
from intaglio.finetunes.names import MAX_NAME_LENGTH, check_finetune_name

SOME_UUID = UUID("6f1f9c0e-3a6b-4c57-9f0e-5a2d5f3b7c11")


@pytest.mark.parametrize("name", ["a", "my-adapter", "v1.2_final", "0", "x" * MAX_NAME_LENGTH, "intaglio", "cf-public"])
def test_plain_names_are_accepted(name: str) -> None:
    check_finetune_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a b", "a\tb", "a\n", "a\x00", "-a", "_a", "é", "a\u202eb",
        "x" * (MAX_NAME_LENGTH + 1), "cf-public-x", "CF-Public-x", "intaglio-x", "public", "Public", str(SOME_UUID),
        SOME_UUID.hex,
    ],
)  # fmt: skip
def test_path_traversal_and_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(FinetuneError):
        check_finetune_name(name)
