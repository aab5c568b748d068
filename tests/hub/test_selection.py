"""Which files are fetched, with file names of published repositories."""

from __future__ import annotations

import pytest

from intaglio.errors import HubError
from intaglio.hub.reference import parse_hub_reference
from intaglio.hub.selection import (
    gguf_files,
    is_safe,
    quantization_of,
    safetensors_files,
    text_files,
    wants_gguf,
)

GOOGLE_7B = [
    ".gitattributes", "README.md", "config.json", "gemma-7b-it.gguf", "generation_config.json",
    "model-00001-of-00004.safetensors", "model-00002-of-00004.safetensors", "model-00003-of-00004.safetensors",
    "model-00004-of-00004.safetensors", "model.safetensors.index.json", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "original/consolidated.pth", "pytorch_model.bin", "flax_model.msgpack",
]  # fmt: skip
BARTOWSKI = [
    "README.md", "google_gemma-3-4b-it-Q4_K_M.gguf", "google_gemma-3-4b-it-Q5_K_M.gguf",
    "google_gemma-3-4b-it-IQ4_XS.gguf", "google_gemma-3-4b-it-bf16.gguf", "google_gemma-3-4b-it-imatrix.gguf",
    "mmproj-google_gemma-3-4b-it-f16.gguf",
]  # fmt: skip
UNSLOTH = [
    "config.json", "gemma-3-27b-it-Q4_K_M.gguf", "gemma-3-27b-it-UD-Q4_K_XL.gguf", "mmproj-BF16.gguf",
    "BF16/gemma-3-27b-it-BF16-00001-of-00002.gguf", "BF16/gemma-3-27b-it-BF16-00002-of-00002.gguf",
]  # fmt: skip
GGML = ["gemma-3-1b-it-Q8_0.gguf", "gemma-3-1b-it-f16.gguf"]


def chosen(names: list[str], source: str) -> list[str]:
    return gguf_files(names, parse_hub_reference(source))


def test_a_folder_of_safetensors_is_preferred_to_the_gguf_file_beside_it() -> None:
    assert not wants_gguf(GOOGLE_7B, parse_hub_reference("hf:google/gemma-7b-it"))
    assert wants_gguf(GOOGLE_7B, parse_hub_reference("hf:google/gemma-7b-it/gemma-7b-it.gguf"))


def test_of_a_folder_the_config_tokenizer_and_shards_of_the_index_are_taken_and_nothing_else() -> None:
    index = {"weight_map": {"a": "model-00001-of-00004.safetensors", "b": "model-00002-of-00004.safetensors"}}
    assert safetensors_files(GOOGLE_7B, index, "google/gemma-7b-it") == sorted(index["weight_map"].values())
    assert set(text_files(GOOGLE_7B)) == {
        "config.json", "generation_config.json", "model.safetensors.index.json", "special_tokens_map.json",
        "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    }  # fmt: skip


def test_an_index_that_names_a_file_which_is_not_there_is_refused() -> None:
    with pytest.raises(HubError, match=r"a/b: model.safetensors.index.json names x.safetensors, which is not there"):
        safetensors_files(GOOGLE_7B, {"weight_map": {"a": "x.safetensors"}}, "a/b")
    with pytest.raises(HubError, match="names no file"):
        safetensors_files(GOOGLE_7B, {}, "a/b")


@pytest.mark.parametrize(
    ("names", "source", "expected"),
    [
        (BARTOWSKI, "hf:b/g", ["google_gemma-3-4b-it-Q4_K_M.gguf"]),
        (BARTOWSKI, "hf:b/g:q5_k_m", ["google_gemma-3-4b-it-Q5_K_M.gguf"]),
        (BARTOWSKI, "hf:b/g:BF16", ["google_gemma-3-4b-it-bf16.gguf"]),
        (UNSLOTH, "hf:b/g", ["gemma-3-27b-it-Q4_K_M.gguf"]),
        (UNSLOTH, "hf:b/g:UD-Q4_K_XL", ["gemma-3-27b-it-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "hf:b/g:Q4_K_XL", ["gemma-3-27b-it-UD-Q4_K_XL.gguf"]),
        (UNSLOTH, "hf:b/g:BF16", UNSLOTH[4:]),
        (UNSLOTH, f"hf:b/g/{UNSLOTH[5]}", UNSLOTH[4:]),
        (GGML, "hf:b/g:F16", ["gemma-3-1b-it-f16.gguf"]),
        (["gemma-3-1b-it-q4_0.gguf"], "hf:b/g", ["gemma-3-1b-it-q4_0.gguf"]),
        (["gemma-7b.gguf"], "hf:b/g", ["gemma-7b.gguf"]),
    ],
)
def test_a_quantization_or_a_file_name_chooses_a_gguf_model_with_all_its_parts(
    names: list[str], source: str, expected: list[str]
) -> None:
    assert chosen(names, source) == expected


def test_a_missing_quantization_is_refused_with_those_that_exist() -> None:
    with pytest.raises(HubError, match=r"b/g has no Q2_K; it has BF16, IQ4_XS, Q4_K_M, Q5_K_M: choose one, .*:BF16"):
        chosen(BARTOWSKI, "hf:b/g:Q2_K")
    with pytest.raises(HubError, match=r"b/g has no Q4_K_M; it has F16, Q8_0"):
        chosen(GGML, "hf:b/g")
    with pytest.raises(HubError, match=r"b/g has no file x.gguf; it has gemma-3-1b-it-Q8_0.gguf, "):
        chosen(GGML, "hf:b/g/x.gguf")
    with pytest.raises(HubError, match=r"has no Q4_0; it has no .gguf file"):
        chosen(["config.json"], "hf:b/g:Q4_0")


def test_two_models_of_one_quantization_are_refused_with_the_names_of_both() -> None:
    with pytest.raises(HubError, match=r"has Q4_0 more than once: a-Q4_0.gguf, b-Q4_0.gguf; name the file"):
        chosen(["a-Q4_0.gguf", "b-Q4_0.gguf"], "hf:b/g:Q4_0")


def test_a_part_that_the_repository_does_not_have_is_named() -> None:
    with pytest.raises(HubError, match=r"without its other parts: g-Q8_0-00002-of-00003.gguf"):
        chosen(["g-Q8_0-00001-of-00003.gguf", "g-Q8_0-00003-of-00003.gguf"], "hf:b/g:Q8_0")


def test_a_repository_without_weights_that_can_be_read_is_refused_with_what_it_has() -> None:
    reference = parse_hub_reference("hf:a/b")
    with pytest.raises(HubError, match=r"a/b has neither model.safetensors .* it has pytorch_model.bin$"):
        wants_gguf(["config.json", "pytorch_model.bin"], reference)
    with pytest.raises(HubError, match=r"a/b is a LoRA adapter, not a base model"):
        wants_gguf(["adapter_config.json", "adapter_model.safetensors"], reference)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gemma-3-270m-it-qat-Q4_0.gguf", "Q4_0"), ("x-IQ4_NL.gguf", "IQ4_NL"), ("x.Q6_K.gguf", "Q6_K"),
        ("x-MXFP4_MOE.gguf", "MXFP4_MOE"), ("sub/x-Q8_0-00001-of-00002.gguf", "Q8_0"), ("gemma-7b.gguf", None),
        ("gemma-3-1b.gguf", None),
    ],
)  # fmt: skip
def test_the_quantization_is_read_from_the_end_of_the_name(name: str, expected: str | None) -> None:
    assert quantization_of(name) == expected


@pytest.mark.parametrize("name", ["../x", "/etc/x", "//etc/x", "a/../../x", "a\\x", "", "a\0b"])
def test_a_name_with_a_path_outside_its_folder_is_not_safe(name: str) -> None:
    assert not is_safe(name)
    assert is_safe("BF16/model.gguf")
