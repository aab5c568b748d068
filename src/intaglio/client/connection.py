"""One server, one account, one token: sends a request and gives back what stands in the envelope."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx2

from intaglio.errors import ServerRefusedError, ServerUnreachableError

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 600.0  # an upload is answered when the adapter is verified, and may wait for others before that
_SHOWN_CHARACTERS = 200  # of an answer that is none of ours
# What the service writes in front of its reasons, which say enough alone.
_PREFIXES = ("AiError: ", "AiError: ", "Bad input: ", "Error: ")


class Connection:
    """Use it as a context manager, or close it.

    url      of the server, without the API's own path: http://127.0.0.1:8080
    account  whose finetunes are meant
    token    sent as a bearer token; None sends none
    """

    def __init__(self, url: str, account: str = "local", token: str | None = None) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        timeout = httpx2.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        self.url = url.rstrip("/")
        base = f"{self.url}/client/v4/accounts/{quote(account, safe='')}/ai/"
        try:
            self._http = httpx2.Client(base_url=base, headers=headers, timeout=timeout)
        except (httpx2.InvalidURL, UnicodeEncodeError) as error:
            raise ServerUnreachableError(f"{url!r} is no address, or the token no header: {error}") from error

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, **query: str | int) -> Any:
        """The `result` of GET, path counted from the account's /ai/. Raises ServerRefusedError or
        ServerUnreachableError, as all of these do.
        """
        return self._result("GET", path, params=query)

    def post(self, path: str, body: object = None, **query: str | int) -> Any:
        return self._result("POST", path, json=body, params=query)

    def delete(self, path: str) -> Any:
        return self._result("DELETE", path)

    def post_form(self, path: str, fields: Mapping[str, str], files: Mapping[str, Any], **query: str) -> Any:
        """The same with a multipart form. The files are read piece by piece while they are sent."""
        return self._result("POST", path, data=dict(fields), files=dict(files), params=query)

    def served_models(self) -> list[str]:
        """Ids of the bases that the server has weights for."""
        with self._answering():
            response = self._http.get(f"{self.url}/health")
        try:
            return list(response.json()["models"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._stranger(response) from error

    @contextmanager
    def download(self, path: str) -> Iterator[tuple[int | None, Iterator[bytes]]]:
        """A file as it comes: its size in bytes, if the server says it, and its pieces."""
        with self._answering(), self._http.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise self._refusal(response)
            length = response.headers.get("content-length")
            yield (int(length) if length is not None else None, response.iter_raw())

    def _result(self, method: str, path: str, **what: Any) -> Any:
        with self._answering():
            response = self._http.request(method, path, **what)
        if response.is_error:
            raise self._refusal(response)
        try:
            return response.json()["result"]
        except (ValueError, KeyError, TypeError) as error:
            raise self._stranger(response) from error

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            said = str(error) or type(error).__name__
            raise ServerUnreachableError(f"no answer from {self.url}: {said}") from error

    def _refusal(self, response: httpx2.Response) -> ServerRefusedError | ServerUnreachableError:
        try:
            first = response.json()["errors"][0]
            message, code = str(first["message"]), int(first["code"])
        except (ValueError, KeyError, TypeError, IndexError):
            return self._stranger(response)
        for prefix in _PREFIXES:
            message = message.removeprefix(prefix)
        message = "".join(letter if letter.isprintable() else " " for letter in message)  # it goes to a terminal
        return ServerRefusedError(message, response.status_code, code)

    def _stranger(self, response: httpx2.Response) -> ServerUnreachableError:
        """Something answers, but it does not speak this API: a proxy, or another program on that port."""
        said = " ".join(response.text[:_SHOWN_CHARACTERS].split())
        return ServerUnreachableError(
            f"{self.url} does not answer as a server of this API does: status {response.status_code}, {said!r}"
        )
