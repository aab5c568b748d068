from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from intaglio.errors import ModelFormatError
from intaglio.text import load_tokenizer
from intaglio.text.hf_vocabulary import read_hf_vocabulary
from tests.helpers.tokenizers import USER_DEFINED, tiny_pieces, write_tokenizer_json


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    write_tokenizer_json(tmp_path / "tokenizer.json", tiny_pieces())
    loaded: dict[str, Any] = json.loads((tmp_path / "tokenizer.json").read_text())
    return loaded


def save(document: Any, tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("added_ids", [None, {0, 1, 2, 3}, set()])
def test_pieces_and_types_are_the_originals(tmp_path: Path, added_ids: set[int] | None) -> None:
    pieces = tiny_pieces()
    write_tokenizer_json(tmp_path / "tokenizer.json", pieces, added_ids=added_ids)
    found = read_hf_vocabulary(tmp_path / "tokenizer.json")
    assert list(found.pieces) == pieces.tokens
    assert list(found.types) == pieces.types
    assert (found.bos_id, found.eos_id, found.unk_id, found.pad_id) == (2, 1, 3, 0)


def test_user_defined_pieces_are_recognised_by_position_and_as_runs(tmp_path: Path) -> None:
    pieces = tiny_pieces()
    pieces.tokens[6], pieces.types[6] = "KEY:", USER_DEFINED  # among the reserved ones, before the bytes
    pieces.tokens[511], pieces.types[511] = "\t\t\t", USER_DEFINED  # Gemma's tab runs come last
    write_tokenizer_json(tmp_path / "tokenizer.json", pieces, added_ids={0, 1, 2, 3})
    assert list(read_hf_vocabulary(tmp_path / "tokenizer.json").types) == pieces.types
    assert load_tokenizer(tmp_path, cache_dir=None).encode("KEY:\t\t\t") == [6, 511]


def test_a_fine_tunes_own_tokens_are_kept(document: dict[str, Any], tmp_path: Path) -> None:
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    document["added_tokens"] += [
        {"id": 512, "content": "<|im_start|>", "special": True, **common},
        {"id": 513, "content": "<think>", "special": False, **common},
    ]
    tokenizer = load_tokenizer(save(document, tmp_path), cache_dir=None)
    assert tokenizer.vocab_size == 514
    assert tokenizer.encode("<|im_start|><think>", special=True) == [512, 513]
    assert 512 not in tokenizer.encode("<|im_start|>")
    assert tokenizer.encode("<think>") == [513]
    assert tokenizer.decode([512, 513]) == "<think>"


@pytest.mark.parametrize("added_ids", [None, {0, 1, 2, 3}], ids=["runs are added tokens", "runs are pieces"])
def test_merges_of_white_space_runs_may_stand_in_any_order(tmp_path: Path, added_ids: set[int] | None) -> None:
    """As published for Gemma 2 and 3: the merges of a run stand among those of other runs."""
    path = tmp_path / "tokenizer.json"
    write_tokenizer_json(path, tiny_pieces(), added_ids=added_ids)
    before, tokenizer = read_hf_vocabulary(path), load_tokenizer(tmp_path, cache_dir=None)
    document = json.loads(path.read_text())
    runs = [[mark * (n - k), mark * k] for n in range(5, 2, -1) for k in range(1, n) for mark in ("\n", "\u2581")]
    document["model"]["merges"] = [*runs, *document["model"]["merges"]]
    after = read_hf_vocabulary(save(document, tmp_path))
    assert (after.pieces, after.types) == (before.pieces, before.types)
    text = "a\n\n\n\n\n\n\n b    c\n  d"
    assert load_tokenizer(tmp_path, cache_dir=None).encode(text) == tokenizer.encode(text)


def test_an_added_token_beyond_the_embedding_is_left_out_and_is_text_when_it_is_typed(
    document: dict[str, Any], tmp_path: Path
) -> None:
    """As in Google's folders of Gemma 3 270M and 1B, which list the image token of the multimodal models."""
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    without = load_tokenizer(save(document, tmp_path), cache_dir=None)
    document["added_tokens"] += [{"id": 512, "content": "<image_soft_token>", "special": True, **common}]
    cache = tmp_path / "cache"
    tokenizer = load_tokenizer(save(document, tmp_path), cache_dir=cache, num_rows=512)
    assert tokenizer.vocab_size == 512
    assert tokenizer.encode("<image_soft_token>", special=True) == without.encode("<image_soft_token>")
    assert load_tokenizer(tmp_path, cache_dir=cache, num_rows=513).vocab_size == 513, "another cached tokenizer"
    assert load_tokenizer(tmp_path, cache_dir=cache).encode("<image_soft_token>", special=True) == [512]


def test_a_piece_of_the_vocabulary_itself_is_never_left_out(document: dict[str, Any], tmp_path: Path) -> None:
    assert load_tokenizer(save(document, tmp_path), cache_dir=None, num_rows=500).vocab_size == 512


def test_a_tab_at_the_position_of_its_byte_piece_is_that_byte(document: dict[str, Any], tmp_path: Path) -> None:
    vocab = document["model"]["vocab"]
    tab_id = vocab.pop("<0x09>")
    vocab["\t"] = tab_id
    tokenizer = load_tokenizer(save(document, tmp_path), cache_dir=None)
    assert tokenizer.encode("a\ta")[1] == tab_id
    assert tokenizer.piece_bytes(tab_id) == b"\t"


def test_splitting_at_spaces_after_they_were_replaced_is_accepted(document: dict[str, Any], tmp_path: Path) -> None:
    document["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }
    plain = tiny_pieces()
    assert list(read_hf_vocabulary(save(document, tmp_path)).pieces) == plain.tokens


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        document[last] = value

    return apply


def swap_far_merges(document: dict[str, Any]) -> None:
    merges = document["model"]["merges"]
    merges.append(merges[0])


def drop_a_merge(document: dict[str, Any]) -> None:
    document["model"]["merges"].remove(["us", "er"])


def add_token(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["added_tokens"].append(fields)


@pytest.mark.parametrize(
    ("mutate", "words"),
    [
        (change("model.type", "Unigram"), "model.type is 'Unigram', but Gemma's tokenizers have 'BPE'"),
        (change("model.byte_fallback", False), "model.byte_fallback is False"),
        (change("model.ignore_merges", True), "model.ignore_merges is True"),
        (change("model.end_of_word_suffix", "</w>"), "model.end_of_word_suffix is '</w>'"),
        (change("normalizer", {"type": "NFC"}), "normalizer is {'type': 'NFC'}"),
        (change("pre_tokenizer", {"type": "ByteLevel"}), "pre_tokenizer is {'type': 'ByteLevel'}"),
        (change("model", []), "no object `model`"),
        (change("model.vocab", []), "model.vocab is not an object"),
        (change("model.vocab.<bos>", 1), "id 1 is both"),
        (change("model.vocab.zzz", 9999), "513 tokens, but none has id 512"),
        (change("model.vocab.zzz", "x"), "none has id 512"),
        (change("model.merges", None), "model.merges is not a list"),
        (change("model.merges", [["a", "b", "c"]]), "merge 0 is .* not a pair"),
        (change("model.merges", [7]), "merge 0 is 7, not a pair"),
        (change("model.merges", [["q", "q"]]), "a merge makes 'qq', which is not a piece"),
        (swap_far_merges, "an earlier merge that is not adjacent"),
        (drop_a_merge, "no merge of 'us' and 'er', though 'user' is a piece"),
        (change("added_tokens", "x"), "added_tokens is not a list"),
        (add_token(id=512), "lacks id, content or special"),
        (add_token(id=2, content="<BOS>", special=True), "id 2 is '<bos>' in model.vocab, '<BOS>' in added_tokens"),
        (add_token(id=512, content="<x>", special=True, lstrip=True), "added token 512, '<x>', has lstrip"),
        (add_token(id=512, content="user", special=True), "are both 'user'"),
        (add_token(id=600, content="<x>", special=True), "none has id 512"),
    ],
)
def test_a_tokenizer_that_cannot_be_reproduced_is_refused_by_name(
    document: dict[str, Any], tmp_path: Path, mutate: Callable[[dict[str, Any]], None], words: str
) -> None:
    mutate(document)
    with pytest.raises(ModelFormatError, match=words) as caught:
        read_hf_vocabulary(save(document, tmp_path))
    assert "tokenizer.json" in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"7", b'{"model": 1}', b"\xff"])
def test_a_file_that_is_not_a_tokenizer_json_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json: (not JSON|no object)"):
        read_hf_vocabulary(path)
