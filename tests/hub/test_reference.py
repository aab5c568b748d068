from __future__ import annotations

import pytest

from intaglio.errors import SettingsError
from intaglio.hub import HubReference, is_hub_reference, parse_hub_reference


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:google/gemma-7b-it", HubReference("google/gemma-7b-it")),
        ("hf:google/gemma-7b-it@main", HubReference("google/gemma-7b-it", "main")),
        ("hf:google/gemma-7b-it@refs/pr/12", HubReference("google/gemma-7b-it", "refs/pr/12")),
        ("hf:b/gemma_3-GGUF:Q4_K_M", HubReference("b/gemma_3-GGUF", None, "Q4_K_M")),
        ("hf:b/g-GGUF:UD-Q4_K_XL@v1.0", HubReference("b/g-GGUF", "v1.0", "UD-Q4_K_XL")),
        ("hf:b/g-GGUF/g-Q8_0.gguf", HubReference("b/g-GGUF", None, None, "g-Q8_0.gguf")),
        ("hf:b/g/BF16/g-00001-of-00002.gguf@abc", HubReference("b/g", "abc", None, "BF16/g-00001-of-00002.gguf")),
    ],
)
def test_a_reference_is_read_into_its_parts_and_written_back(source: str, expected: HubReference) -> None:
    assert is_hub_reference(source)
    assert parse_hub_reference(source) == expected
    assert str(expected) == source


@pytest.mark.parametrize(
    "source",
    [
        "hf:", "hf:gemma-7b-it", "hf:google/", "hf:https://huggingface.co/google/gemma-7b-it", "hf:a/b:", "hf:a/b@",
        "hf:a/../b", "hf:a/b/../../x.gguf", "hf:a--b/c", "hf:a/b:Q4_K_M/x.gguf", "hf:a/b c", "hf:-a/b",
        "hf:a/b@../main",
    ],
)  # fmt: skip
def test_a_malformed_reference_is_refused_with_the_form_that_is_needed(source: str) -> None:
    with pytest.raises(SettingsError, match=r"hf:OWNER/REPO\[:QUANTIZATION\]\[@REVISION\]"):
        parse_hub_reference(source)


def test_a_file_that_is_not_gguf_is_refused_with_the_reference_of_its_repository() -> None:
    with pytest.raises(SettingsError, match=r"names the file config.json; .* the whole repository: hf:a/b$"):
        parse_hub_reference("hf:a/b/config.json")
