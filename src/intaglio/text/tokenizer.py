"""Text to token ids and back, exactly as SentencePiece does it for Gemma.

The `sentencepiece` library does the encoding, whatever file the vocabulary came from (docs/decisions/0002).
This module adds: where control tokens are recognised, BOS, which ids are stop tokens, and the text of one token. It
does not know chats (`chat.py`), streaming (`detokenizer.py`) or the model.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import sentencepiece

from intaglio.errors import ModelFormatError
from intaglio.files.lfs_pointer import LFS_ADVICE, NUM_BYTES, is_lfs_pointer
from intaglio.model.weights import part_paths
from intaglio.request import TokenTable
from intaglio.text.gguf_vocabulary import gguf_vocabulary, read_gguf_metadata
from intaglio.text.hf_vocabulary import read_hf_vocabulary
from intaglio.text.sentencepiece_model import read_model, write_model
from intaglio.text.tokenizer_cache import PreparedTokenizer, prepare_cached
from intaglio.text.vocabulary import SPACE_SYMBOL, Vocabulary, beyond_embedding, byte_value

logger = logging.getLogger(__name__)

ADDED_TOKENS_FILE = "added_tokens.json"  # beside a tokenizer.model
_TURN_ENDS = ("<end_of_turn>", "<turn|>")  # Gemma 1 to 3, and later ones


class Tokenizer:
    """Encodes and decodes with one vocabulary. Safe to use from several threads.

    vocab_size  number of tokens; the model's embedding may have more rows, which have no text
    digest      identity of the vocabulary, hex
    stop_ids    tokens that end a completion: eos, the turn end if the vocabulary has one, and those given
    pad_id      None where the vocabulary has no padding token
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    pad_id: int | None
    digest: str
    stop_ids: frozenset[int]

    def __init__(
        self, prepared: PreparedTokenizer, *, eos_ids: Iterable[int] = (), eos_token: str | None = None
    ) -> None:
        """eos_ids: the end tokens in the model's configuration; eos_token: as for `load_tokenizer`.

        Raises ModelFormatError.
        """
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=prepared.model)
        except (RuntimeError, ValueError) as err:
            raise ModelFormatError(f"sentencepiece refuses the vocabulary: {err}") from err
        self.vocab_size = int(self._processor.vocab_size())
        self.bos_id, self.eos_id, self.pad_id = prepared.bos_id, prepared.eos_id, prepared.pad_id
        self.digest = hashlib.sha256(msgspec.msgpack.encode(prepared)).hexdigest()
        self._control_ids = prepared.control_ids
        self._control_id_set = frozenset(prepared.control_ids.values())
        self._control_splitter = ControlTokenSplitter(prepared.control_ids)
        self._bytes_of: dict[int, bytes] = {}
        turn_ends = (prepared.control_ids[name] for name in _TURN_ENDS if name in prepared.control_ids)
        named = () if eos_token is None else self._piece_ids(eos_token)
        self.stop_ids = frozenset((self.eos_id, *turn_ends, *named, *self._checked_ids(eos_ids)))

    def encode(self, text: str, *, special: bool = False, add_bos: bool = False) -> list[int]:
        """The token ids of `text`.

        special   False: a control token written in the text is plain text, so that a user's text can never
                  become one. True: it is that token (for raw prompts).
        add_bos   put BOS first, unless the ids begin with it already

        Half a surrogate pair, which JSON allows and UTF-8 does not, counts as U+FFFD.
        """
        text = _without_surrogates(text)
        if special:
            ids: list[int] = []
            for part in self.split_at_control_tokens(text):
                ids.extend([part] if isinstance(part, int) else self._processor.encode(part))
        else:
            ids = self._processor.encode(text)
        if add_bos and ids[:1] != [self.bos_id]:
            ids.insert(0, self.bos_id)
        return ids

    def split_at_control_tokens(self, text: str) -> list[str | int]:
        """The text in order: control tokens written in it as ids, the stretches between them, never empty, as text."""
        return list(self._control_splitter.split(_without_surrogates(text)))

    def piece_bytes(self, token_id: int) -> bytes:
        """The bytes that one token adds to the output: UTF-8 that may begin or end inside a character.

        Empty for control tokens and for ids past the vocabulary: Gemma 3 of 4B and up pads its embedding.
        """
        found = self._bytes_of.get(token_id)
        if found is None:
            found = self._bytes_of[token_id] = self._token_bytes(token_id)
        return found

    def piece_name(self, token_id: int) -> str:
        """The piece as the vocabulary writes it: the name of a control token. Empty past the vocabulary."""
        return str(self._processor.id_to_piece(token_id)) if 0 <= token_id < self.vocab_size else ""

    def token_table(self) -> TokenTable:
        """The bytes of every token, for the engine's grammars. Computed at each call: 0.2 s for 262,144 tokens."""
        pieces = [self._token_bytes(token_id) for token_id in range(self.vocab_size)]
        return TokenTable(pieces, sorted(self._control_id_set))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; invalid UTF-8 becomes U+FFFD as with Python's "replace"."""
        return b"".join(map(self.piece_bytes, ids)).decode("utf-8", errors="replace")

    def decode_with_names(self, ids: Iterable[int]) -> str:
        """As `decode`, but control tokens are written out: `encode` with `special` makes the same ids of it again."""
        raw = (self.piece_bytes(token_id) or self.piece_name(token_id).encode() for token_id in ids)
        return b"".join(raw).decode("utf-8", errors="replace")

    @property
    def control_tokens(self) -> Collection[str]:
        """The texts of all control tokens."""
        return self._control_ids.keys()

    def control_id(self, piece: str) -> int | None:
        """The id of a control token by its text, None if the vocabulary has no such control token."""
        return self._control_ids.get(piece)

    def _token_bytes(self, token_id: int) -> bytes:
        if token_id < 0:
            raise ValueError(f"token id {token_id} is negative")
        if token_id >= self.vocab_size or token_id in self._control_id_set:
            return b""
        piece: str = self._processor.id_to_piece(token_id)
        if self._processor.is_byte(token_id):
            value = byte_value(piece)
            assert value is not None, f"byte token {token_id} is {piece!r}"
            return bytes([value])
        return piece.replace(SPACE_SYMBOL, " ").encode("utf-8")

    def _piece_ids(self, piece: str) -> tuple[int, ...]:
        """The id of a piece by its text; empty, and logged, if the vocabulary does not have it."""
        token_id = int(self._processor.piece_to_id(piece.replace(" ", SPACE_SYMBOL)))
        if self.piece_name(token_id) == piece.replace(" ", SPACE_SYMBOL):
            return (token_id,)
        logger.warning("the vocabulary has no token %r, which tokenizer_config.json names as eos_token", piece)
        return ()

    def _checked_ids(self, eos_ids: Iterable[int]) -> list[int]:
        ids = list(eos_ids)
        for token_id in ids:
            if not 0 <= token_id < self.vocab_size:
                raise ModelFormatError(
                    f"the model's end token {token_id} is outside the tokenizer's {self.vocab_size} tokens"
                )
        return ids


def load_tokenizer(
    path: Path,
    *,
    cache_dir: Path | None,
    checkpoint_metadata: Mapping[str, Any] | None = None,
    eos_ids: Iterable[int] = (),
    eos_token: str | None = None,
    num_rows: int | None = None,
) -> Tokenizer:
    """The tokenizer of a checkpoint.

    path                 a .gguf file, a tokenizer.json, a tokenizer.model, or a folder with one of them
                         (preferred in the order tokenizer.json, tokenizer.model, the one .gguf)
    cache_dir            where the prepared tokenizer is kept for the next start; None keeps nothing
    checkpoint_metadata  the `tokenizer.ggml.*` metadata of `path`, if it was read already; other keys are ignored
    eos_ids              end tokens that the model's configuration names
    eos_token            the text of the end token that tokenizer_config.json names, which ends a completion too
    num_rows             rows of the model's embedding: added tokens beyond them are left out. None keeps all

    Raises ModelFormatError if there is no tokenizer, or one that cannot be reproduced exactly.
    """
    file = _tokenizer_file(path)

    def prepare() -> PreparedTokenizer:
        if checkpoint_metadata is not None:
            return prepare_tokenizer(gguf_vocabulary(checkpoint_metadata, str(file), num_rows))
        return prepare_tokenizer(_read_vocabulary(file, num_rows))

    try:
        sources = [file, file.with_name(ADDED_TOKENS_FILE)] if file.suffix == ".model" else [file]
        return Tokenizer(prepare_cached(sources, num_rows, cache_dir, prepare), eos_ids=eos_ids, eos_token=eos_token)
    except OSError as err:
        raise ModelFormatError(f"{file}: cannot be read ({err})") from err


def prepare_tokenizer(vocabulary: Vocabulary) -> PreparedTokenizer:
    """The vocabulary in the form that `Tokenizer` takes and the cache keeps."""
    return PreparedTokenizer(
        model=write_model(vocabulary),
        control_ids=vocabulary.control_ids,
        bos_id=vocabulary.bos_id,
        eos_id=vocabulary.eos_id,
        pad_id=vocabulary.pad_id,
    )


def _tokenizer_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise ModelFormatError(f"{path}: the tokenizer file does not exist")
        return path
    for name in ("tokenizer.json", "tokenizer.model"):
        if (path / name).is_file():
            return path / name
    found = sorted(path.glob("*.gguf"))
    if not found or not set(found) <= set(part_paths(found[0])):
        names = ", ".join(file.name for file in found) or "none"
        raise ModelFormatError(
            f"{path}: no tokenizer.json, no tokenizer.model and not exactly one .gguf file ({names})"
        )
    return part_paths(found[0])[0]  # the first part has the vocabulary


def _read_vocabulary(file: Path, num_rows: int | None) -> Vocabulary:
    if file.suffix == ".json":
        return read_hf_vocabulary(file, num_rows)
    if file.suffix == ".model":
        vocabulary = read_model(file.read_bytes(), str(file))
        _check_no_added_tokens(file.with_name(ADDED_TOKENS_FILE), vocabulary, num_rows)
        return vocabulary
    with file.open("rb") as opened:
        head = opened.read(NUM_BYTES)
    if is_lfs_pointer(head):
        raise ModelFormatError(f"{file}: {LFS_ADVICE}")
    if head[:4] != b"GGUF":
        raise ModelFormatError(
            f"{file}: not a tokenizer file; it begins with {head[:4]!r} and must be *.json, *.model or GGUF"
        )
    return gguf_vocabulary(read_gguf_metadata(file), str(file), num_rows)


def _check_no_added_tokens(file: Path, vocabulary: Vocabulary, num_rows: int | None) -> None:
    """Raise ModelFormatError if added_tokens.json, which fine-tunes may have, lists tokens of the embedding that are
    not in tokenizer.model.
    """
    if not file.is_file():
        return
    try:
        added = msgspec.json.decode(file.read_bytes(), type=dict[str, int])
    except msgspec.DecodeError as err:
        raise ModelFormatError(f"{file}: not an object of token ids ({err})") from err
    beyond = beyond_embedding(added, num_rows, str(file))
    for piece, token_id in added.items():
        if token_id in beyond:
            continue
        if not 0 <= token_id < len(vocabulary.pieces) or vocabulary.pieces[token_id] != piece:
            raise ModelFormatError(
                f"{file}: token {token_id} is {piece!r}, which tokenizer.model does not have; "
                "save the tokenizer as tokenizer.json"
            )


class ControlTokenSplitter:
    """Splits a text at control tokens written in it, such as `<start_of_turn>`; the longest that matches counts."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """ids: text -> token id, not empty; no text is empty."""
        self._ids = ids
        self._first = re.compile("[" + "".join(re.escape(c) for c in sorted({p[0] for p in ids})) + "]")
        self._lengths = sorted({len(piece) for piece in ids}, reverse=True)

    def split(self, text: str) -> Iterator[str | int]:
        """The text in order: plain stretches (never empty) as str, control tokens as their id."""
        plain_start = search_start = 0
        while match := self._first.search(text, search_start):
            begin = match.start()
            length = self._token_length(text, begin)
            if length == 0:
                search_start = begin + 1
                continue
            if begin > plain_start:
                yield text[plain_start:begin]
            yield self._ids[text[begin : begin + length]]
            plain_start = search_start = begin + length
        if plain_start < len(text):
            yield text[plain_start:]

    def _token_length(self, text: str, begin: int) -> int:
        """Characters of the control token that begins at this place; 0 if there is none."""
        return next((n for n in self._lengths if text[begin : begin + n] in self._ids), 0)


def _without_surrogates(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
