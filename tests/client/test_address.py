from __future__ import annotations

import pytest

from intaglio.client.address import read_address


@pytest.mark.parametrize(
    ("pasted", "url", "account"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("localhost", "http://localhost", None),
        (" https://host.example/ ", "https://host.example", None),
        ("localhost:8080/v1", "http://localhost:8080", None),
        ("localhost:8080/v1/", "http://localhost:8080", None),
        ("http://host/client/v4", "http://host", None),
        ("http://host/client/v4/accounts/me", "http://host", "me"),
        ("http://host/client/v4/accounts/me/ai", "http://host", "me"),
        ("http://host/client/v4/accounts/me/ai/v1", "http://host", "me"),
        ("host:9000/client/v4/accounts/me/ai/run/", "http://host:9000", "me"),
        ("http://host/client/v4/accounts/a%20b/ai", "http://host", "a b"),
        ("https://host/intaglio", "https://host/intaglio", None),
        ("https://host/intaglio/v1", "https://host/intaglio", None),
        ("https://host/v1/other", "https://host/v1/other", None),
        ("[::1]:8080", "http://[::1]:8080", None),
    ],
)
def test_an_address_is_read_as_it_is_pasted(pasted: str, url: str, account: str | None) -> None:
    assert read_address(pasted) == (url, account)
