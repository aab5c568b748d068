"""The two-part upload of an adapter file, written to disk as it arrives.

The parts `file_name` and `file` come in either order, and the part's own filename is ignored: each client puts
something else there. So the file is staged before its name is known, and checked afterwards.

A fault (a part twice, too many bytes beside the file) is refused as soon as it is seen, not after the last byte.
"""

from __future__ import annotations

import asyncio
import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from intaglio.api.http.json_body import check_declared_length, too_large
from intaglio.errors import BadInputError
from intaglio.finetunes.storage.staging import StagedFile

MAX_FRAMING_BYTES = 64 * 1024  # boundaries, part headers, the file_name part
MAX_NAME_BYTES = 256

_PART_NAME = re.compile(rb"[\x20-\x7e]{1,64}")
_NEEDED = (b"file_name", b"file")
_PLAIN_TRANSFER = (b"7bit", b"8bit", b"binary")


async def read_upload(request: Request, staged: StagedFile, max_file_bytes: int) -> str:
    """Stream the part `file` into `staged` and return the text of the part `file_name`.

    Raises RequestTooLargeError beyond max_file_bytes plus MAX_FRAMING_BYTES, BadInputError for a body that is not
    such a form.
    """
    limit = max_file_bytes + MAX_FRAMING_BYTES
    check_declared_length(request, limit)
    _check_encoding(request)
    form = _UploadForm(_boundary(request), staged)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise too_large(limit)
        if chunk:
            await asyncio.to_thread(form.feed, chunk)
    return form.finish()


def _check_encoding(request: Request) -> None:
    """Refuse compressed bodies: unpacking one could fill the disk."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise BadInputError(f"the upload has content-encoding {encoding[:40]!r}; send the form as it is")


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise BadInputError("the upload must be multipart/form-data with the parts 'file_name' and 'file'")
    return boundary


class _UploadForm:
    """Receives the parser's callbacks. Parts of other names are read and dropped."""

    def __init__(self, boundary: bytes, staged: StagedFile) -> None:
        self._num_bytes = 0
        self._num_file_bytes = 0
        self._staged = staged
        self._file_name = bytearray()
        self._seen: set[bytes] = set()
        self._part = b""
        self._header_name = b""
        self._header_value = b""
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadInputError(f"the multipart boundary is not usable: {error}") from error

    def feed(self, chunk: bytes) -> None:
        """Parse the next piece of the body. Raises BadInputError as soon as the form is invalid."""
        for start in range(0, len(chunk), MAX_FRAMING_BYTES):
            self._feed_piece(chunk[start : start + MAX_FRAMING_BYTES])

    def _feed_piece(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadInputError(f"the upload is not well-formed multipart/form-data: {error}") from error
        self._num_bytes += len(piece)
        if self._num_bytes - self._num_file_bytes > MAX_FRAMING_BYTES:  # a million small parts take minutes to read
            raise BadInputError(f"the upload has more than {MAX_FRAMING_BYTES} bytes beside its file")

    def finish(self) -> str:
        """The file name, after the last piece. Raises BadInputError unless both parts are complete."""
        if not self._complete:
            raise BadInputError("the upload ends before the closing boundary of its multipart form")
        for name in _NEEDED:
            if name not in self._seen:
                raise _wrong_count(0, name)
        try:
            return self._file_name.decode().strip()
        except UnicodeDecodeError as error:
            raise BadInputError("the part 'file_name' is not UTF-8") from error

    def _on_part_begin(self) -> None:
        self._part = b""
        self._header_name = self._header_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        header, value = self._header_name.lower(), self._header_value.strip()
        self._header_name = self._header_value = b""
        if header == b"content-disposition":
            if self._part:  # two readers of the form could take it for different parts
                raise BadInputError("a part of the upload has two content-disposition headers")
            _, options = parse_options_header(value)
            self._part = options.get(b"name", b"")
        elif header == b"content-transfer-encoding" and value.lower() not in _PLAIN_TRANSFER:
            shown = value[:40].decode("latin-1")
            raise BadInputError(f"a part of the upload has content-transfer-encoding {shown!r}; send it as it is")

    def _on_headers_finished(self) -> None:
        if not _PART_NAME.fullmatch(self._part):
            raise BadInputError("a part of the upload has no usable name")
        if self._part in self._seen and self._part in _NEEDED:
            raise _wrong_count(2, self._part)
        self._seen.add(self._part)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == b"file":
            self._staged.write(data[start:end])
            self._num_file_bytes += end - start
        elif self._part == b"file_name":
            self._file_name += data[start:end]
            if len(self._file_name) > MAX_NAME_BYTES:
                raise BadInputError(f"the part 'file_name' is longer than {MAX_NAME_BYTES} bytes")

    def _on_end(self) -> None:
        self._complete = True


def _wrong_count(count: int, name: bytes) -> BadInputError:
    return BadInputError(f"the upload has {count} parts named {name.decode()!r}, and needs exactly one")
