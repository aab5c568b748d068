"""What the programs of this folder that ask a server share: the options that say which server, and a request to it."""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

MODEL = "@intaglio/gemma-3-270m"
TIMEOUT_S = 600


@dataclass(frozen=True, slots=True)
class Server:
    """account_url: where the routes of an account begin, without a slash at its end."""

    account_url: str
    token: str | None
    model: str

    @property
    def run_route(self) -> str:
        """The route that runs the model."""
        return f"ai/run/{urllib.parse.quote(self.model, safe='@/')}"

    def post(self, route: str, body: object) -> Any:
        """The JSON that a route answers. Raises RuntimeError with the server's message if it refuses."""
        url = f"{self.account_url}/{route}"
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{url} has status {error.code}: {error.read().decode(errors='replace')}") from error


def add_server_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--base-url", default="http://127.0.0.1:8080")
    parser.add_argument("--account", default="local")
    parser.add_argument("--token", default=os.environ.get("CLOUDFLARE_API_TOKEN"))
    parser.add_argument("--model", default=MODEL)


def server_of(arguments: argparse.Namespace) -> Server:
    """The server that the options name."""
    account_url = f"{arguments.base_url.rstrip('/')}/client/v4/accounts/{arguments.account}"
    return Server(account_url, arguments.token, arguments.model)
