"""docs/peft.md says of every key of an adapter config what the code does with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from intaglio.lora.peft.config import HARMLESS_KEYS, REFUSED_KEYS, USED_KEYS
from intaglio.lora.peft.tensor_names import parse_tensor_name
from tests.helpers.adapters import peft_config

PAGE = (Path(__file__).parents[3] / "docs" / "peft.md").read_text("utf-8")


def keys_that_the_page_calls(what: str) -> set[str]:
    rows = re.findall(rf"^\| (`.+?`) \| {what} \|", PAGE, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_the_page_and_the_code_agree_on_every_key() -> None:
    assert keys_that_the_page_calls("used") == USED_KEYS
    assert keys_that_the_page_calls("harmless") == HARMLESS_KEYS
    assert keys_that_the_page_calls("refused") == set(REFUSED_KEYS)


def test_every_key_that_peft_writes_is_in_one_of_the_tables() -> None:
    tables = [USED_KEYS, HARMLESS_KEYS, frozenset(REFUSED_KEYS)]
    assert all(sum(key in table for table in tables) == 1 for key in peft_config())


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`((?:model|lm_head)\.[\w.]+)`", PAGE))))
def test_every_tensor_on_the_page_is_read(name: str) -> None:
    assert parse_tensor_name(name.replace(".N.", ".0."), "page").kind


def test_every_refusal_of_a_key_says_what_to_do() -> None:
    assert all(re.match(r"(Train|Name|Upload|Save) ", remedy) for _, remedy in REFUSED_KEYS.values())
