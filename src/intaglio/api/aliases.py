"""Other addresses of the same routes, as middleware: what OpenAI's tools and callers of an AI Gateway expect.

    /v1/…, /tokenize, /detokenize, /tokenizer_info    the account `local`'s A/ai/v1/…
    A/ai/tokenize, A/ai/detokenize, A/ai/tokenizer_info   A/ai/v1/…, for a tool that finds them beside its /v1
    /v1/{account}/{gateway}/workers-ai/v1/…           A/ai/v1/…
    /v1/{account}/{gateway}/workers-ai/…              A/ai/run/…
    /v1/{account}/{gateway}/compat/chat/completions   A/ai/v1/chat/completions
    A/ai/health                                       /health

A is /client/v4/accounts/{account}. The gateway's name changes nothing. A request is rewritten before it is routed, so
an alias answers every method, error and spelling as the route itself does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from intaglio.api.http.auth import LOCAL_ACCOUNT
from intaglio.api.http.unmatched import ASKED_PATH

_ACCOUNT_AI = "/client/v4/accounts/{account}/ai"
_OF_VLLM = ("tokenize", "detokenize", "tokenizer_info")  # routes that vLLM has at its root
# `/v1/models/…` is a model by its id, whatever the id looks like.
_BY_GATEWAY = r"/v1/(?!models/)(?P<account>[^/]+)/[^/]+"


@dataclass(frozen=True, slots=True)
class Alias:
    """One rule, for paths and for the OpenAPI document.

    name      ends the names of its operations in the document
    pattern   of the paths that it rewrites; its group `rest` follows `target` in the result
    template  what the document has in place of `target`
    target    the route, or what its path begins with; {account} stands for the group `account`, else for `local`
    """

    name: str
    pattern: re.Pattern[str]
    template: str
    target: str

    def rewritten(self, path: str) -> str | None:
        """The path of the route; None if the rule does not apply."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        groups: Mapping[str, str | None] = found.groupdict()
        account = groups.get("account") or LOCAL_ACCOUNT
        return self.target.replace("{account}", account) + (groups.get("rest") or "")

    def documented(self, path: str) -> str | None:
        """The alias's path for a route's path in the document; None if that route does not have this alias."""
        return self.template + path.removeprefix(self.target) if path.startswith(self.target) else None


# The first rule that applies counts.
ALIASES = (
    Alias(
        "for_account", re.compile(r"/client/v4/accounts/[^/]+/ai/health/?"), f"{_ACCOUNT_AI}/health", "/health"
    ),
    Alias(
        "by_gateway_v1", re.compile(_BY_GATEWAY + r"/workers-ai/v1(?P<rest>(/.*)?)", re.DOTALL),
        "/v1/{account}/{gateway}/workers-ai/v1", f"{_ACCOUNT_AI}/v1",
    ),
    Alias(
        "by_gateway", re.compile(_BY_GATEWAY + r"/workers-ai/(?P<rest>.+)", re.DOTALL),
        "/v1/{account}/{gateway}/workers-ai/", f"{_ACCOUNT_AI}/run/",
    ),
    Alias(
        "by_gateway_compat", re.compile(_BY_GATEWAY + r"/compat/chat/completions/?"),
        "/v1/{account}/{gateway}/compat/chat/completions", f"{_ACCOUNT_AI}/v1/chat/completions",
    ),
    Alias("at_root", re.compile(r"/v1(?P<rest>(/.*)?)", re.DOTALL), "/v1", f"{_ACCOUNT_AI}/v1"),
    *(Alias("of_vllm", re.compile(f"/{name}/?"), f"/{name}", f"{_ACCOUNT_AI}/v1/{name}") for name in _OF_VLLM),
    *(
        Alias(
            "beside_v1", re.compile(rf"/client/v4/accounts/(?P<account>[^/]+)/ai/{name}/?"),
            f"{_ACCOUNT_AI}/{name}", f"{_ACCOUNT_AI}/v1/{name}",
        )
        for name in _OF_VLLM
    ),
)  # fmt: skip


class RouteAliases:
    """Middleware: replaces the path of a request by that of the route which the alias stands for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = aliased_path(scope["path"])
            if path != scope["path"]:
                scope = {**scope, "path": path, "raw_path": quote(path).encode(), ASKED_PATH: scope["path"]}
        await self._app(scope, receive, send)


def aliased_path(path: str) -> str:
    """The path of the route that a path stands for; the path itself if it is no alias."""
    return next((found for alias in ALIASES if (found := alias.rewritten(path)) is not None), path)
