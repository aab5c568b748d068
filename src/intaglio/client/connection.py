"""Sends requests to one server with one account and token, and returns the `result` of the envelope."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from intaglio.client.address import read_address
from intaglio.errors import ServerRefusedError, ServerUnreachableError

CONNECT_TIMEOUT_S = 10.0
RESPONSE_TIMEOUT_S = 600.0  # an upload's response comes after its verification, which may queue behind others
_MAX_SHOWN_CHARACTERS = 200  # in the message about a response that is not from this API
# Prefixes of the service's messages, which are not shown to the user.
_PREFIXES = ("AiError: ", "AiError: ", "Bad input: ", "Error: ")


@cache
def _trusted_certificates() -> ssl.SSLContext:
    """Read once: it takes longer than most requests."""
    return httpx2.create_ssl_context()


class Connection:
    """Use it as a context manager, or close it.

    url      of the server, as `read_address` takes it: http://127.0.0.1:8080
    account  the owner of the finetunes; None is the one that the url names, or else `local`
    token    sent as a bearer token; None sends none
    """

    def __init__(self, url: str, account: str | None = None, token: str | None = None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        timeout = httpx2.Timeout(RESPONSE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self.url, named_account = read_address(url)
        base = f"{self.url}/client/v4/accounts/{quote(account or named_account or 'local', safe='')}/ai/"
        try:
            self._http = httpx2.Client(base_url=base, headers=headers, timeout=timeout, verify=_trusted_certificates())
        except (httpx2.InvalidURL, UnicodeEncodeError) as error:
            raise ServerUnreachableError(
                f"{url!r} is not a valid address, or the token not a valid header value: {error}"
            ) from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        """The `result` of GET; path is relative to the account's /ai/. Raises ServerRefusedError or
        ServerUnreachableError, as all methods do.
        """
        return self._result("GET", path, params=query)

    def post(self, path: str, body: object = None, **query: str | int) -> Any:
        return self._result("POST", path, json=body, params=query)

    def delete(self, path: str) -> Any:
        return self._result("DELETE", path)

    def post_form(self, path: str, fields: Mapping[str, str], files: Mapping[str, Any], **query: str) -> Any:
        """The `result` of POST with a multipart form. Files are read piece by piece while they are sent."""
        return self._result("POST", path, data=dict(fields), files=dict(files), params=query)

    def served_models(self) -> list[str]:
        """Ids of the bases that the server has weights for."""
        with self._unreachable_as_error():
            response = self._http.get(f"{self.url}/health")
        try:
            return list(response.json()["models"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._unexpected_response(response) from error

    @contextmanager
    def download(self, path: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """Stream a file: its size in bytes, if the server sends it, and its pieces."""
        with self._unreachable_as_error(), self._http.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise self._refusal(response)
            length = response.headers.get("content-length")
            yield (int(length) if length is not None else None, response.iter_raw())

    @contextmanager
    def stream_lines(self, path: str, body: object) -> Iterator[Iterator[str]]:
        """The lines of the response to POST, as they come."""
        with self._unreachable_as_error(), self._http.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                raise self._refusal(response)
            yield response.iter_lines()

    def _result(self, method: str, path: str, **options: Any) -> Any:
        with self._unreachable_as_error():
            response = self._http.request(method, path, **options)
        if response.is_error:
            raise self._refusal(response)
        try:
            return response.json()["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._unexpected_response(response) from error

    @contextmanager
    def _unreachable_as_error(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            advice = "start one with `intaglio serve`, or give the address of another with --url or INTAGLIO_URL"
            raise ServerUnreachableError(f"no response from {self.url}: {error}; {advice}") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            detail = str(error) or type(error).__name__
            raise ServerUnreachableError(f"no response from {self.url}: {detail}") from error

    def _refusal(self, response: httpx2.Response) -> ServerRefusedError | ServerUnreachableError:
        try:
            first = response.json()["errors"][0]
            message, code = str(first["message"]), int(first["code"])
        except (ValueError, KeyError, TypeError, IndexError):
            return self._unexpected_response(response)
        return ServerRefusedError(shown_message(message), response.status_code, code)

    def _unexpected_response(self, response: httpx2.Response) -> ServerUnreachableError:
        """The error for a response that is not from this API: from a proxy, or from another program on that port."""
        detail = " ".join(response.text[:_MAX_SHOWN_CHARACTERS].split())
        return ServerUnreachableError(
            f"the response of {self.url} is not from a server of this API: status {response.status_code}, {detail!r}"
        )


def shown_message(message: str) -> str:
    """A message of the server without the service's prefixes, as one line that a terminal can show."""
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return "".join(letter if letter.isprintable() else " " for letter in message)
