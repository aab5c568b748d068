"""The address of a server as people paste it: with or without a scheme, and with the paths that clients are given."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

# What stands behind the address in docs and clients: OpenAI's base URL, Cloudflare's, an account's routes.
_API_PATH = re.compile(r"(/client/v4(/accounts/(?P<account>[^/]+)(/ai(/v1|/run)?)?)?|/v1)?/*$")


class Address(NamedTuple):
    """The server's own address, and the account that the pasted one names, if it names one."""

    url: str
    account: str | None


def read_address(text: str) -> Address:
    """`127.0.0.1:8080`, `http://host:8080/v1` and `https://host/client/v4/accounts/me/ai` are all read.

    A path that is not the API's own is kept: a proxy may serve below it.
    """
    url = text.strip()
    if "://" not in url:
        url = f"http://{url}"
    found = _API_PATH.search(url, url.index("://") + 3)
    assert found is not None, "the pattern matches the empty text at the end"
    account = found["account"]
    return Address(url[: found.start()], None if account is None else unquote(account))
