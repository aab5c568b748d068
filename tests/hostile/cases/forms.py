"""Upload bodies that are not a valid form: duplicate, missing, misnamed, truncated or oversized parts."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.hostile.case import CONFIG, WEIGHTS

BOUNDARY = "b0undary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
END = f"--{BOUNDARY}--\r\n".encode()


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    """One part. disposition: the text after `form-data; `."""
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + content + b"\r\n"


def form(file: bytes, file_name: str = CONFIG) -> bytes:
    """A valid form."""
    return part('name="file_name"', file_name.encode()) + part('name="file"; filename="blob"', file) + END


@dataclass(frozen=True, slots=True)
class HostileForm:
    """An upload of one file. make: valid file -> body. complaint: a regular expression for the message."""

    name: str
    complaint: str
    make: Callable[[bytes], bytes]
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": FORM})


def hostile(name: str, complaint: str, make: Callable[[bytes], bytes], **headers: str) -> HostileForm:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return HostileForm(name, complaint, make, {"content-type": FORM, **named})


NAME = part('name="file_name"', CONFIG.encode())


def file(good: bytes) -> bytes:
    return part('name="file"; filename="blob"', good)


def named(name: bytes) -> Callable[[bytes], bytes]:
    """A form whose part `file_name` has this value."""
    return lambda good: part('name="file_name"', name) + file(good) + END


def dispositions(*values: str) -> Callable[[bytes], bytes]:
    """A form whose file has these content-disposition headers."""
    lines = "".join(f"Content-Disposition: {value}\r\n" for value in values).encode("latin-1")
    return lambda good: NAME + f"--{BOUNDARY}\r\n".encode() + lines + b"\r\n" + good + b"\r\n" + END


COUNTS = (
    hostile("two files", "2 parts named 'file'", lambda good: NAME + file(good) + file(good) + END),
    hostile("two files, one empty", "2 parts named 'file'", lambda good: file(b"") + NAME + file(good) + END),
    hostile("two files around the name", "2 parts named 'file'", lambda good: file(good) + NAME + file(b"{}") + END),
    hostile(
        "two names",
        "2 parts named 'file_name'",
        lambda good: NAME + part('name="file_name"', WEIGHTS.encode()) + file(good) + END,
    ),
    hostile("a name twice", "2 parts named 'file_name'", lambda good: NAME + NAME + file(good) + END),
    hostile("no file", "0 parts named 'file'", lambda good: NAME + END),
    hostile("no name", "0 parts named 'file_name'", lambda good: file(good) + END),
    hostile("nothing", "0 parts named 'file_name'", lambda good: END),
    hostile("a file of another case", "0 parts named 'file'", lambda good: NAME + part('name="File"', good) + END),
    hostile("a file with a space", "0 parts named 'file'", lambda good: NAME + part('name=" file"', good) + END),
    hostile(
        "a hundred thousand parts",
        "more than 65536 bytes beside its file",
        lambda good: part('name="x"', b"") * 100_000 + NAME + file(good) + END,
    ),
    hostile(
        "a hundred thousand parts behind the file",
        "more than 65536 bytes beside its file",
        lambda good: NAME + file(good) + part('name="x"', b"") * 100_000 + END,
    ),
    hostile(
        "a large part beside the file",
        "more than 65536 bytes beside its file",
        lambda good: part('name="x"', b"x" * 1_000_000) + NAME + file(good) + END,
    ),
    hostile(
        "much behind the end",
        "more than 65536 bytes beside its file|not well-formed",
        lambda good: form(good) + b"x" * 1_000_000,
    ),
)

NAMES = (
    *(
        hostile(f"the file name {name[:40]!r}", "file_name is ", named(name))
        for name in (
            b"",
            b"../adapter_config.json",
            b"/etc/passwd",
            b"C:\\adapter_config.json",
            b"adapter_config.json\x00.bin",
            b"Adapter_Config.json",
            b"adapter_config.jso\xd0\xbf",
            "\u202eadapter_config.json".encode(),
            b"adapter_model.bin",
            b"%61dapter_config.json",
            b"adapter_config.json\r\nx: y",
            b"README.md",
        )
    ),
    hostile("a file name that is not UTF-8", "not UTF-8", named(b"adapter_config.json\xff")),
    hostile("a file name in UTF-16", "not UTF-8|file_name is", named(CONFIG.encode("utf-16"))),
    hostile("a long file name", "longer than 256 bytes", named(b"a" * 257)),
    hostile("the name of a part with NUL", "no usable name", lambda good: NAME + part('name="fi\x00le"', good) + END),
    hostile(
        "a part's name of a thousand characters",
        "no usable name",
        lambda good: NAME + part(f'name="{"x" * 1000}"', good) + END,
    ),
    hostile("a part's name in Latin-1", "no usable name", lambda good: NAME + part('name="\xe4"', good) + END),
    hostile("an empty part's name", "no usable name", lambda good: NAME + part('name=""', good) + END),
    hostile("a part without a name", "no usable name", lambda good: NAME + part('filename="file"', good) + END),
    hostile("a part without a disposition", "no usable name", dispositions()),
    hostile(
        "two dispositions",
        "two content-disposition headers",
        dispositions('form-data; name="x"', 'form-data; name="file"'),
    ),
    hostile(
        "two dispositions the other way round",
        "two content-disposition headers",
        dispositions('form-data; name="file"', 'form-data; name="x"'),
    ),
    hostile("an extended name alone", "no usable name", dispositions("form-data; name*=utf-8''file")),
    hostile(
        "a file in base64",
        "content-transfer-encoding 'base64'",
        lambda good: NAME + part('name="file"', good, "Content-Transfer-Encoding: base64") + END,
    ),
    hostile(
        "a file in quoted-printable",
        "content-transfer-encoding 'Quoted-Printable'",
        lambda good: NAME + part('name="file"', good, "Content-Transfer-Encoding: Quoted-Printable") + END,
    ),
    hostile(
        "a thousand headers",
        "not well-formed|beside its file",
        lambda good: NAME + part('name="file"', good, *(f"X-{n}: y" for n in range(1000))) + END,
    ),
    hostile(
        "a header of a megabyte",
        "not well-formed|beside its file",
        lambda good: NAME + part('name="file"', good, "X: " + "y" * 1_000_000) + END,
    ),
    hostile(
        "a disposition of semicolons",
        "not well-formed|beside its file|no usable name",
        lambda good: NAME + part('"' + ";" * 60_000, good) + END,
    ),
    hostile(
        "a header without a colon", "not well-formed", lambda good: NAME + part('name="file"', good, "nonsense") + END
    ),
    hostile("a header with NUL", "not well-formed", lambda good: NAME + part('name="file"', good, "X\x00: y") + END),
)

BOUNDARIES = (
    *(
        hostile(f"content type {kind!r}", "must be multipart/form-data", form, content_type=kind)
        for kind in (
            "multipart/form-data",
            'multipart/form-data; boundary=""',
            "multipart/mixed; boundary=b0undary",
            "application/json",
            "",
            "multipart/form-data, multipart/form-data; boundary=b0undary",
            "x" * 4000,
        )
    ),
    hostile("another boundary", "not well-formed", form, content_type="multipart/form-data; boundary=other"),
    hostile(
        "a long boundary", "boundary is not usable", form, content_type=f"multipart/form-data; boundary={'x' * 300}"
    ),
    hostile("two boundaries", "not well-formed", form, content_type=f"{FORM}; boundary=other"),
    hostile("no boundary in the body", "not well-formed", lambda good: good),
    hostile("the file alone", "not well-formed", lambda good: b"x" + good),
    hostile("an empty body", "ends before the closing boundary", lambda good: b""),
    hostile(
        "boundaries without line breaks", "not well-formed|ends before", lambda good: form(good).replace(b"\r\n", b"")
    ),
    hostile("bare line feeds", "not well-formed", lambda good: form(good).replace(b"\r\n", b"\n")),
    hostile("text before the form", "not well-formed", lambda good: b"hello\r\n" + form(good)),
    hostile("no end", "ends before the closing boundary", lambda good: NAME + file(good)),
    hostile(
        "an end of one dash",
        "not well-formed|ends before",
        lambda good: NAME + file(good) + f"--{BOUNDARY}-\r\n".encode(),
    ),
    hostile(
        "a form in a form",
        "adapter_config.json is not valid JSON",
        lambda good: NAME + part('name="file"', form(good).replace(BOUNDARY.encode(), b"inner")) + END,
    ),
    hostile("gzip", "content-encoding 'gzip'", lambda good: gzip.compress(form(good)), content_encoding="gzip"),
    hostile(
        "a gzip bomb in transit",
        "content-encoding 'gzip'",
        lambda good: gzip.compress(bytes(1 << 24)),
        content_encoding="gzip",
    ),
    hostile(
        "gzip in capitals, twice",
        "content-encoding 'gzip, gzip'",
        lambda good: gzip.compress(form(good)),
        content_encoding="GZIP, gzip",
    ),
    hostile("an unheard of encoding", "content-encoding 'br;q=1'", form, content_encoding="br;q=1"),
)

FORMS: tuple[HostileForm, ...] = COUNTS + NAMES + BOUNDARIES

# Unusual valid forms: their file must be accepted.
VALID: dict[str, Callable[[bytes], bytes]] = {
    "the name behind the file": lambda good: file(good) + NAME + END,
    "white space around the name": named(b" adapter_config.json\n"),
    "other parts": lambda good: part('name="x"', b"y") + NAME + part('name="x"', b"") + file(good) + END,
    "a filename that is a path": lambda good: NAME + part('name="file"; filename="../../etc/passwd"', good) + END,
    "a filename with NUL": lambda good: NAME + part('name="file"; filename="a\x00b"', good) + END,
    "a filename of another file": lambda good: NAME + part(f'name="file"; filename="{WEIGHTS}"', good) + END,
    "names without quotes": lambda good: part("name=file_name", CONFIG.encode()) + part("name=file", good) + END,
    "a binary part": lambda good: (
        NAME + part('name="file"', good, "Content-Transfer-Encoding: binary", "Content-Type: x/y") + END
    ),
    "an extended name beside the plain": lambda good: NAME + part("name=\"file\"; name*=utf-8''x", good) + END,
    "a little text behind the end": lambda good: form(good) + b"\r\n",
}
