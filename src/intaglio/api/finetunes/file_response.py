"""A stored file as a response, sent from its open handle, so that it may be renamed or deleted meanwhile."""

from __future__ import annotations

import asyncio
from email.utils import format_datetime
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from intaglio.finetunes.storage.blobs import OpenedFile

CHUNK_BYTES = 1 << 18
_MEDIA_TYPES = {".json": "application/json", ".safetensors": "application/octet-stream"}


def file_response(request: Request, opened: OpenedFile) -> Response:
    """The file, only its headers for HEAD, or 304 if the request has its etag, the file's SHA-256.

    The file is closed with the response.
    """
    etag = f'"{opened.stored.sha256}"'
    headers = {
        "etag": etag,
        "last-modified": format_datetime(opened.stored.uploaded_at, usegmt=True),
        "content-disposition": f'attachment; filename="{opened.name}"',
    }
    if _names_etag(request.headers.get("if-none-match", ""), etag):
        opened.file.close()
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    headers["content-length"] = str(opened.stored.size_bytes)
    headers["content-type"] = next(kind for end, kind in _MEDIA_TYPES.items() if opened.name.endswith(end))
    if request.method == "HEAD":
        opened.file.close()
        return Response(headers=headers)
    return _FileResponse(opened, headers)


class _FileResponse(Response):
    """Sends an open file in pieces and closes it, also when the client disconnects."""

    def __init__(self, opened: OpenedFile, headers: dict[str, str]) -> None:
        super().__init__(headers=headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._opened.file as file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def _names_etag(if_none_match: str, etag: str) -> bool:
    """Whether the header has the etag, weak or strong, or `*`."""
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag in tags or "*" in tags
