"""Reference tokenizers to compare with, and awkward strings to compare on."""

from __future__ import annotations

import random
import textwrap
from itertools import pairwise
from pathlib import Path

from tests.helpers.tokenizers import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, Pieces, normal_merges


class PlainBpe:
    """SentencePiece's BPE as one would tell it to a friend; slow, short, and no code shared with the library.

    User-defined pieces match whole, the longest first. Between them the text is cut into characters, and the two
    neighbours whose joint text is the best piece are joined, leftmost first, until none are left. Characters
    that are no piece become bytes.
    """

    def __init__(self, pieces: Pieces) -> None:
        rows = list(zip(*pieces, strict=True))
        self._id = {text: i for i, (text, _, kind) in enumerate(rows) if kind == NORMAL}
        self._score = {text: score for text, score, kind in rows if kind == NORMAL}
        self._whole = {text: i for i, (text, _, kind) in enumerate(rows) if kind == USER_DEFINED}
        self._whole_lengths = sorted({len(text) for text in self._whole}, reverse=True)
        self._byte = {int(text[3:5], 16): i for i, (text, _, kind) in enumerate(rows) if kind == BYTE}

    def encode(self, text: str) -> list[int]:
        text = text.replace(" ", "\u2581")
        ids: list[int] = []
        plain = ""
        at = 0
        while at < len(text):
            size = next((n for n in self._whole_lengths if text[at : at + n] in self._whole), 0)
            if size:
                ids += [*self._encode_plain(plain), self._whole[text[at : at + size]]]
                plain = ""
            else:
                size = 1
                plain += text[at]
            at += size
        return ids + self._encode_plain(plain)

    def _encode_plain(self, text: str) -> list[int]:
        symbols = list(text)
        none = float("-inf")
        scores = [self._score.get(a + b, none) for a, b in pairwise(symbols)]
        while scores and (best := max(scores)) > none:
            i = scores.index(best)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            del scores[i]
            if i > 0:
                scores[i - 1] = self._score.get(symbols[i - 1] + symbols[i], none)
            if i < len(scores):
                scores[i] = self._score.get(symbols[i] + symbols[i + 1], none)
        ids: list[int] = []
        for symbol in symbols:
            ids += [self._id[symbol]] if symbol in self._id else [self._byte[b] for b in symbol.encode()]
        return ids


def hugging_face_bpe(pieces: Pieces) -> object:
    """The same vocabulary in the `tokenizers` library, by a recipe that was measured to equal SentencePiece."""
    from tokenizers import AddedToken, Tokenizer, normalizers
    from tokenizers.models import BPE

    vocab = {text: i for i, text in enumerate(pieces.tokens)}
    model = BPE(vocab=vocab, merges=normal_merges(pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    rows = list(zip(pieces.tokens, pieces.types, strict=True))
    tokenizer.add_tokens([AddedToken(t, normalized=True) for t, k in rows if k == USER_DEFINED])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t, k in rows if k in (CONTROL, UNKNOWN)])
    assert tokenizer.get_vocab_size() == len(pieces.tokens)
    return tokenizer


_FRAGMENTS = (
    *(" " * n for n in (1, 1, 1, 1, 2, 3, 4, 8, 30, 31, 32, 33, 65)),
    *("\n" * n for n in (1, 1, 1, 2, 3, 31, 32, 64)),
    *("\t" * n for n in (1, 1, 2, 3, 31, 33)),
    *("\r\n", "\r", "\x00", "\x0b", "\x7f", "\u00a0", "\u200b", "\u3000", "\u2581", "\u2581\u2581", " \u2581 "),
    *("<td>", "</td>", "<table>", "<b>", "</b", "<h1>", "<br/>", "<td", "td>", "<<td>>", "<unknown>", "<img>"),
    *("<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>", "<unk>", "<mask>", "<unused7>", "<0x0A>"),
    *("<start_of_turn>user\n", "[multimodal]", "<start_of_image>", "<|im_start|>", "[INST]", "</s>", "<s>"),
    *("the", " the", "The", "user", "model", "hello", "tokenization", "antidisestablishment", "don't", "e.g.", "I'm"),
    *("0", "7", "42", "2026", "3.14159", "1,000,000", "0xFF", "+1", "-", "--", "...", "!!!", "?!", '"', "'", "''"),
    *("日本語", "中文字符", "한국어", "ไทย", "हिन्दी", "العربية", "עברית", "Ελληνικά", "русский", "naïve", "é", "ß"),
    *("😀", "👩‍👩‍👧", "🇨🇭", "👍🏽", "🧿", "\U000e0041", "\ufffd", "\uffff", "\ufeff", "𝕳𝖎", "ﬁ", "Å", "A\u030a", "½"),
    *("def f(x):", "    return x", "{}", "[]", "()", "==", "!=", "->", "# TODO", "\\n", "http://a.b/c?d=e&f=g"),
)
_HTML = (
    '<html><body><table class="x">\n\t<tr><td>1</td><td> 2 </td></tr>\n</table>\n\n<h1>Title</h1>'
    "<blockquote>\n  <code>a  b</code>\n</blockquote><ul><li>x</li>\n\n\n<li>y</li></ul></body></html>"
)


def awkward_strings(count: int, *, seed: int = 20260726) -> list[str]:
    """`count` different strings: single fragments, real code and markup, random mixes, random characters."""
    rng = random.Random(seed)
    source = Path(textwrap.__file__).read_text(encoding="utf-8") + Path(random.__file__).read_text(encoding="utf-8")
    strings = {"": None, **dict.fromkeys(_FRAGMENTS), _HTML: None}
    while len(strings) < count // 4:
        begin = rng.randrange(len(source))
        strings[source[begin : begin + rng.randrange(1, 200)]] = None
    while len(strings) < count * 3 // 4:
        strings["".join(rng.choices(_FRAGMENTS, k=rng.randrange(2, 14)))] = None
    while len(strings) < count * 7 // 8:
        begin = rng.randrange(len(_HTML))
        cut = _HTML[begin : begin + rng.randrange(1, 120)]
        strings[cut + rng.choice(_FRAGMENTS) + cut] = None
    while len(strings) < count:
        strings["".join(map(_any_character, [rng] * rng.randrange(1, 40)))] = None
    return list(strings)


def _any_character(rng: random.Random) -> str:
    top = rng.choice((0x80, 0x80, 0x250, 0x3100, 0x10000, 0x110000))
    code = rng.randrange(top)
    return " " if 0xD800 <= code < 0xE000 else chr(code)
