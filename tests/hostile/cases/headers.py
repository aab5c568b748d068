"""Invalid safetensors headers: their length, and the offsets, shapes, types and names of tensors."""

from __future__ import annotations

import json
import struct
from typing import Any

from intaglio.files.safetensors_header import MAX_NAME_CHARS
from intaglio.lora.peft.safetensors_file import MAX_HEADER_BYTES
from tests.hostile.case import HostileCase, bad_weights
from tests.hostile.good_adapter import (
    A,
    B,
    Header,
    join_file,
    renamed,
    split_file,
    with_entry,
    with_header,
    with_tensors,
)


def entry(shape: Any = (1,), start: Any = 0, stop: Any = 4, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def false_length(length: int) -> HostileCase:
    return bad_weights(
        f"a header length of {length}",
        f"says it has {length} bytes, but only",
        lambda good: struct.pack("<Q", length) + good[8:],
    )


def raw(name: str, complaint: str, text: bytes) -> HostileCase:
    return bad_weights(name, complaint, lambda good: join_file(text))


def spliced(old: bytes, new: bytes) -> Any:
    """The good file with the first occurrence of a text in its header replaced, also by invalid JSON."""

    def make(good: bytes) -> bytes:
        header, data = split_file(good)
        return join_file(json.dumps(header).encode().replace(old, new, 1), data)

    return make


def _shifted(good: bytes, by: int) -> bytes:
    (length,) = struct.unpack("<Q", good[:8])
    return (
        struct.pack("<Q", len(good[8 : 8 + length].rstrip()) + by) + good[8 : 8 + length].rstrip() + good[8 + length :]
    )


def _moved(header: Header, name: str, by: int) -> None:
    header[name]["data_offsets"] = [max(0, offset + by) for offset in header[name]["data_offsets"]]
    start, stop = header[name]["data_offsets"]
    header[name]["shape"] = [1, (stop - start) // 4]


def _gap_in_front(good: bytes) -> bytes:
    header, data = split_file(good)
    for name, fields in header.items():
        if name != "__metadata__":
            fields["data_offsets"] = [offset + 4 for offset in fields["data_offsets"]]
    return join_file(header, bytes(4) + data)


def _twice(header: Header) -> None:
    """Adds the same matrix again, under another spelling of its name."""
    other = max(name for name in header if name != "__metadata__" and name not in (A, B) and "lora_A" in name)
    header["module." + A] = header.pop(other)


def _two_adapters(header: Header) -> None:
    for name in (A, B):
        header[name.replace(".weight", ".other.weight")] = header.pop(name)


def _many(count: int) -> bytes:
    """A file of `count` scalars, their names as short as possible."""
    entries = (f'"{n}":{{"dtype":"F32","shape":[],"data_offsets":[{4 * n},{4 * n + 4}]}}' for n in range(count))
    return join_file(f"{{{','.join(entries)}}}".encode(), bytes(4 * count))


LENGTHS = (
    bad_weights("an empty file", "0 bytes are too few", lambda good: b""),
    bad_weights("seven bytes", "7 bytes are too few", lambda good: good[:7]),
    bad_weights("eight bytes", "but only 0 follow", lambda good: good[:8]),
    bad_weights("zeros", "header is not valid JSON", lambda good: bytes(len(good))),
    bad_weights("a header length of 0", "header is not valid JSON", lambda good: bytes(8) + good[8:]),
    *(false_length(length) for length in (10**6, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)),
    bad_weights("a header cut by one byte", "header is not valid JSON", lambda good: _shifted(good, -1)),
    bad_weights("a header longer by one byte", "header is not valid JSON", lambda good: _shifted(good, 1)),
    bad_weights("a big-endian length", "bytes, but only", lambda good: good[7::-1] + good[8:]),
    raw("a header above the bound", f"the limit is {MAX_HEADER_BYTES}", b"{}" + b" " * MAX_HEADER_BYTES),
)

JSON = (
    raw("a header of noise", "header is not valid JSON", b"\xff\xfe\xfd" * 100),
    raw("a list", "a JSON object is needed", b"[1]"),
    raw("null", "a JSON object is needed", b"null"),
    raw("no tensors", "holds no tensors", b"{}"),
    raw("metadata alone", "holds no tensors", b'{"__metadata__": {"format": "pt"}}'),
    raw("deeply nested lists", "nested too deeply", b"[" * 1_000_000),
    raw("deeply nested objects", "nested too deeply", b'{"a":' * 300_000),
    raw("a number of a million digits", "header is not valid JSON", b'{"a": ' + b"9" * 1_000_000 + b"}"),
    raw("UTF-16", "header is not valid JSON", '{"a": 1}'.encode("utf-16")),
    raw("a byte order mark", "header is not valid JSON", b"\xef\xbb\xbf{}"),
    raw("a comment", "header is not valid JSON", b"{} // fine"),
    raw("two objects", "header is not valid JSON", b"{}{}"),
    raw("a name twice", "'t' occurs twice", b'{"t": 1, "t": 1}'),
    raw("a name twice, once escaped", "'t' occurs twice", b'{"t": 1, "\\u0074": 1}'),
    bad_weights("a field twice", "'dtype' occurs twice", spliced(b'"dtype"', b'"dtype": "F16", "dtype"')),
    *(
        bad_weights(
            f"{word} as a size", f"{word} is not a JSON value", spliced(b'"shape": [4', b'"shape": [' + word.encode())
        )
        for word in ("NaN", "Infinity", "-Infinity")
    ),
    bad_weights("1e999 as a size", r"lora_A.weight' has shape \[inf", spliced(b'"shape": [4', b'"shape": [1e999')),
    bad_weights("4.0 as a size", r"shape \[4.0", spliced(b'"shape": [4', b'"shape": [4.0')),
)

ENTRIES = (
    bad_weights(
        "a tensor that is null", "lora_A.weight' is None", with_header(lambda header: header.update({A: None}))
    ),
    bad_weights(
        "a tensor without offsets", "data_offsets are needed", with_header(lambda header: header[A].pop("data_offsets"))
    ),
    bad_weights("a field too many", "dtype, shape and data_offsets are needed", with_entry(layout="sparse")),
    *(
        bad_weights(f"dtype {dtype!r}", "has dtype .*; save it as one of F32, F16, BF16", with_entry(dtype=dtype))
        for dtype in ("F64", "I32", "F8_E4M3", "f32", "", None, ["F32"])
    ),
    *(
        bad_weights(f"shape {shape!r}", "has shape .* sizes are needed", with_entry(shape=shape))
        for shape in ("4x48", None, {}, [-4, -48], [True, 192], ["4", "48"], [[4, 48]], [1 << 40, 1], [1] * 9)
    ),
    bad_weights(
        "a shape whose product overflows 64 bits",
        f"needs {4 << 64} bytes; its offsets span",
        with_entry(shape=[1 << 32, 1 << 32]),
    ),
    bad_weights("a shape whose product is 0 in 64 bits", "bytes; its offsets span", with_entry(shape=[1 << 39] * 8)),
    bad_weights(
        "rank 0",
        r"shape \[0, 48\]",
        with_tensors(lambda tensors: tensors.update({A: tensors[A][:0], B: tensors[B][:, :0]})),
    ),
    bad_weights("no dimensions", "needs 4 bytes; its offsets span", with_entry(shape=[])),
    bad_weights("one dimension", r"has shape \[192\]", with_entry(shape=[192])),
    bad_weights("three dimensions", r"has shape \[1, 4, 48\]", with_entry(shape=[1, 4, 48])),
    bad_weights("eight dimensions", "has shape", with_entry(shape=[1, 1, 1, 1, 1, 1, 4, 48])),
    bad_weights("a wider type for the same bytes", "needs 384 bytes; its offsets span 768", with_entry(dtype="F16")),
    bad_weights("a shape too large by one", "needs 784 bytes; its offsets span 768", with_entry(shape=[4, 49])),
    bad_weights("terabytes", "needs 4398046511104 bytes; its offsets span", with_entry(shape=[1 << 20, 1 << 20])),
)

OFFSETS = (
    *(
        bad_weights(f"offsets {offsets!r}", "has data_offsets", with_entry(data_offsets=offsets))
        for offsets in ([0], [0, 1, 2], [8, 0], [-768, 0], [0.0, 768.0], "0-768", None, [0, 1 << 64], [True, 768])
    ),
    bad_weights(
        "terabytes at the right offsets",
        "ends at byte .*, the file at",
        with_entry(shape=[1 << 18, 1 << 18], data_offsets=[0, 1 << 38]),
    ),
    bad_weights(
        "a tensor far behind the end",
        "ends at byte .*, the file at|leaves a gap",
        with_entry(data_offsets=[1 << 39, (1 << 39) + 768]),
    ),
    bad_weights(
        "two tensors on one place",
        "lora_B.weight' at byte .* overlaps",
        lambda good: join_file({A: entry([4, 48], 0, 768), B: entry([128, 4], 0, 2048)}, bytes(2048)),
    ),
    bad_weights(
        "a tensor over the end of another", "overlaps|leaves a gap", with_header(lambda header: _moved(header, A, -4))
    ),
    bad_weights(
        "a gap between tensors", "leaves a gap after|ends at byte", with_header(lambda header: _moved(header, A, 4))
    ),
    bad_weights("a gap in front", "leaves a gap after the header", _gap_in_front),
    bad_weights("a byte too many", "1 bytes follow tensor", lambda good: good + b"\x00"),
    bad_weights("a second file behind the first", "bytes follow tensor", lambda good: good + good),
    bad_weights("a byte too few", "ends at byte .*, the file at", lambda good: good[:-1]),
    bad_weights("the header alone", "ends at byte .*, the file at", lambda good: join_file(split_file(good)[0])),
)

METADATA = (
    *tuple(
        bad_weights(
            f"metadata {json.dumps(value)[:20]}",
            "__metadata__ is .*; a JSON object of strings is needed",
            with_header(lambda header, value=value: header.update(__metadata__=value)),
        )
        for value in ([], "pt", 5, {"format": 5}, {"format": None}, {"format": {"a": "b"}}, [["format", "pt"]])
    ),
    bad_weights(
        "two megabytes of metadata",
        f"the limit is {MAX_HEADER_BYTES}",
        with_header(lambda header: header.update(__metadata__={"x": "y" * 2100000})),
    ),
)


def named(name: str, complaint: str, tensor: str) -> HostileCase:
    """A tensor of the good file, under another name."""
    return bad_weights(name, complaint, with_header(lambda header: header.update({tensor: header.pop(A)})))


NAMES = (
    named("a name of a million characters", f"1000000 characters; the limit is {MAX_NAME_CHARS}", "x" * 1_000_000),
    named("a name with NUL", r"lora_A\.weight\\x00'", A + "\x00"),
    named("a name with a line break", r"lora_A\.weight\\n'", A + "\n"),
    named("a name with an escape sequence", r"\\x1b\[2J", "\x1b[2J" + A),
    named("a name that turns writing round", r"\\u202e", "\u202e" + A),
    named("a path", r"'\.\./\.\./etc/passwd'", "../../etc/passwd"),
    named("Arabic digits", "tensor", A.replace("layers.0", "layers.\u0660")),
    named("a lone surrogate", "tensor|header", A + "\ud800"),
    named("a negative layer", "tensor", A.replace("layers.0", "layers.-1")),
    named("a layer with a leading zero", "tensor", A.replace("layers.0", "layers.00")),
    named("a layer of twenty digits", "tensor", A.replace("layers.0", "layers." + "9" * 20)),
    bad_weights("a module under two spellings", "the same one under two spellings", with_header(_twice)),
    bad_weights(
        "halves under two spellings",
        "spell their module differently|has no lora",
        with_header(lambda header: header.update({A.replace("model.model.model", "model.model"): header.pop(A)})),
    ),
    bad_weights("two adapters in one file", "holds the adapters", with_header(_two_adapters)),
    bad_weights("10,000 tensors", "tensor", lambda good: _many(10_000), slow=True),
    bad_weights("100,000 tensors", f"the limit is {MAX_HEADER_BYTES}", lambda good: _many(100_000)),
    bad_weights("no name fits", "tensor 'other", renamed("base_model", "other")),
)

CASES: tuple[HostileCase, ...] = LENGTHS + JSON + ENTRIES + OFFSETS + METADATA + NAMES
