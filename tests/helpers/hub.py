"""A fake of the Hugging Face hub on loopback: its HTTP API, with the faults that a network has.

Large files are sent from another host name, as the hub's are from its storage, after a redirect.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".gguf", ".bin", ".model")
_API = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
_STORED = re.compile(r"/storage/(?P<blob>[0-9a-f]{64})")


@dataclass
class HubRepository:
    """files: contents by name. gated: needs a token that has access. architecture: what the hub says of GGUF files."""

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    architecture: str | None = None

    @property
    def commit(self) -> str:
        return hashlib.sha1(json.dumps(sorted(map(blob_of, self.files, self.files.values()))).encode()).hexdigest()


@dataclass
class HubRequest:
    method: str
    path: str
    host: str
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    """The repositories and faults of the fake hub.

    breaks          for a file, after how many bytes each of its next responses is cut off
    replaced        contents that are sent in place of the listed ones
    ignores_ranges  as some proxies do
    status          of every response, if the hub is down
    api_answer      body of its API's responses, if it is not a hub
    """

    url: str = ""
    token: str = "hf_secret"
    repositories: dict[str, HubRepository] = field(default_factory=dict)
    breaks: dict[str, list[int]] = field(default_factory=dict)
    replaced: dict[str, bytes] = field(default_factory=dict)
    ignores_ranges: bool = False
    status: int | None = None
    api_answer: bytes | None = None
    requests: list[HubRequest] = field(default_factory=list)

    def add(self, repo: str, files: Mapping[str, bytes], **changes: Any) -> HubRepository:
        self.repositories[repo] = HubRepository(dict(files), **changes)
        return self.repositories[repo]

    def add_folder(self, repo: str, folder: Path, **changes: Any) -> HubRepository:
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        return self.add(repo, files, **changes)

    def fetched(self) -> list[str]:
        """The files whose contents were asked for, in order."""
        found = [_FILE.fullmatch(one.path) for one in self.requests if one.method == "GET"]
        return [unquote(match["name"]) for match in found if match]


def blob_of(name: str, content: bytes) -> str:
    """The hash by which the hub lists a file."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub without repositories, until the block ends."""
    hub = FakeHub()

    class Handler(_Handler):
        fake = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeHub

    def log_message(self, *_arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, address = self.fake, urlsplit(self.path)
        path = unquote(address.path)
        token = self.headers.get("authorization")
        hub.requests.append(HubRequest(self.command, path, self.headers["host"], self.headers.get("range"), token))
        if hub.status is not None:
            self._refuse(hub.status, None)
        elif hub.api_answer is not None:
            self._send(200, hub.api_answer, {"content-type": "text/html"})
        elif (api := _API.fullmatch(path)) is not None:
            self._api(api["repo"], api["revision"], parse_qs(address.query))
        elif (file := _FILE.fullmatch(path)) is not None:
            self._file(file["repo"], file["revision"], file["name"])
        elif (stored := _STORED.fullmatch(path)) is not None:
            self._stored(stored["blob"])
        else:
            self._refuse(404, None)

    def _repository(self, repo: str, revision: str | None) -> HubRepository | None:
        found = self.fake.repositories.get(repo)
        if found is None:
            self._refuse(401, "RepoNotFound")  # the hub does not tell whether there is a private one
        elif revision is not None and revision not in (found.commit, *found.revisions):
            self._refuse(404, "RevisionNotFound")
            return None
        return found

    def _api(self, repo: str, revision: str | None, query: Mapping[str, list[str]]) -> None:
        found = self._repository(repo, revision)
        if found is None:
            return
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in found.files]
        if query.get("blobs"):
            for one in siblings:
                content = found.files[one["rfilename"]]
                one |= {"size": len(content), "blobId": blob_of("", content)}
                if one["rfilename"].endswith(LARGE):
                    one["lfs"] = {
                        "size": len(content),
                        "sha256": blob_of(one["rfilename"], content),
                        "pointerSize": 134,
                    }
        answer = {"id": repo, "modelId": repo, "sha": found.commit, "gated": found.gated, "siblings": siblings}
        if found.architecture:
            answer["gguf"] = {"architecture": found.architecture, "total": 1}
        body = json.dumps(answer).encode()
        self._send(200, body, {"content-type": "application/json"})

    def _file(self, repo: str, revision: str, name: str) -> None:
        found = self._repository(repo, revision)
        if found is None:
            return
        if found.gated and self.headers.get("authorization") != f"Bearer {self.fake.token}":
            self._refuse(401, "GatedRepo")
        elif name not in found.files:
            self._refuse(404, "EntryNotFound")
        elif name.endswith(LARGE):
            blob = blob_of(name, found.files[name])
            elsewhere = self.fake.url.replace("127.0.0.1", "localhost")
            headers = {
                "x-repo-commit": found.commit,
                "x-linked-size": str(len(found.files[name])),
                "x-linked-etag": f'"{blob}"',
                "location": f"{elsewhere}/storage/{blob}?signature=secret",
            }
            self._send(302, b"", headers)
        else:
            self._content(name, found.files[name], {"x-repo-commit": found.commit})

    def _stored(self, blob: str) -> None:
        for repository in self.fake.repositories.values():
            for name, content in repository.files.items():
                if blob_of(name, content) == blob:
                    self._content(name, content, {})
                    return
        self._refuse(404, None)

    def _content(self, name: str, content: bytes, headers: dict[str, str]) -> None:
        hub = self.fake
        content = hub.replaced.get(name, content)
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or "")
        start = int(wanted[1]) if wanted and not hub.ignores_ranges else 0
        if start:
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = hub.breaks[name].pop(0) if hub.breaks.get(name) else None
        headers["etag"] = f'"{blob_of(name, content)}"'
        self._send(206 if start else 200, content[start:], headers, cut)

    def _refuse(self, status: int, code: str | None) -> None:
        self._send(status, b"", {"x-error-code": code} if code else {})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.close_connection = True
