"""`intaglio serve`: bind the port, start the engines, serve HTTP, print a message when ready."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import uvicorn

from intaglio.api.app import create_app
from intaglio.api.startup import build_state, checked_stand_ins
from intaglio.api.state import ServerState
from intaglio.cli.progress.download import download_progress
from intaglio.cli.progress.work import Report, work_progress
from intaglio.errors import SettingsError
from intaglio.files.data_folder import make_data_folder
from intaglio.llm import OnModelLoading
from intaglio.model.bundled import terms_notice
from intaglio.model_source import with_local_models
from intaglio.settings import DEFAULT_MODEL_ID, PREFIX, Settings

TOKEN_VARIABLE = f"{PREFIX}TOKEN"


def serve(settings: Settings) -> None:
    """Run until interrupted. Raises SettingsError, DataFolderError, ModelFormatError or HubError if it cannot start."""
    logging.basicConfig(level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it logs every start
    for name in ("httpx2", "httpcore2"):  # they log addresses, and the hub's are signed
        logging.getLogger(name).setLevel(logging.WARNING)
    checked_stand_ins(settings)  # before a model is fetched
    make_data_folder(settings.data_path)
    if not settings.model:
        _show_terms_once(settings.data_path)
    with bind(settings) as listener:  # before the model is loaded, so that a port in use is reported at once
        try:
            settings = with_local_models(settings, download_progress(log=True))  # here, where Ctrl-C ends a download
            asyncio.run(_serve(settings, listener))
        except KeyboardInterrupt:
            print("stopped")


async def _serve(settings: Settings, listener: socket.socket) -> None:
    with loading_bars() as on_loading:
        state = await build_state(settings, on_loading)
    config = uvicorn.Config(
        create_app(state), log_config=None, access_log=False, timeout_graceful_shutdown=5, server_header=False
    )
    host, port = listener.getsockname()[:2]
    server = _AnnouncingServer(config, _announcement(state, host, port))
    try:
        await server.serve(sockets=[listener])
    finally:
        await state.close()


@contextmanager
def loading_bars() -> Iterator[OnModelLoading]:
    """A bar with the time left for each model whose weights have to be quantized, one after the other."""
    with ExitStack() as shown:
        reports: dict[str, Report] = {}

        def on_loading(model_id: str, done: int, total: int) -> None:
            if model_id not in reports:
                shown.close()  # the bar of the previous model
                reports[model_id] = shown.enter_context(work_progress(f"quantizing {model_id}", "bytes"))
            reports[model_id](done, total)

        yield on_loading


class _AnnouncingServer(uvicorn.Server):
    """Prints a text once the server accepts requests."""

    def __init__(self, config: uvicorn.Config, announcement: str) -> None:
        super().__init__(config)
        self._announcement = announcement

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(self._announcement, flush=True)


def bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises SettingsError if the address cannot be bound."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is explicit because asyncio sets TCP_NODELAY only then. With Nagle's algorithm every second small
    # packet waits for the client's delayed acknowledgement: 40 ms for each response on a keep-alive connection.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        advice = "stop what listens there, or choose another with --port"
        raise SettingsError(f"cannot listen on {settings.host} port {settings.port}: {reason}; {advice}") from error
    return listener


def _announcement(state: ServerState, host: str, port: int) -> str:
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1") else host
    base = f"http://{f'[{shown}]' if ':' in shown else shown}:{port}"
    token = _token_option(state.settings)
    model_id = DEFAULT_MODEL_ID if DEFAULT_MODEL_ID in state.models else next(iter(state.models))
    run = f"{base}/client/v4/accounts/local/ai/run/{model_id}"
    commands = [
        *(
            _curl(run, token, {"prompt": prompt, "lora": name, "temperature": 0})
            for name, prompt in state.demo_adapter_names(model_id)[:1]
        ),
        _curl(run, token, {"prompt": "The three primary colors are", "raw": True, "max_tokens": 7, "temperature": 0}),
        _curl(run, f"-N {token}", {"prompt": "Once upon a time", "raw": True, "max_tokens": 24, "stream": True}),
    ]
    served = ", ".join(state.models)
    stand_ins = [f"{answering} stands in for {one}" for one, answering in state.stand_ins.items()]
    ready = f"Intaglio is ready: {served} at {base} (playground: {base}/). Try:"
    if token:
        ready = (
            ready.removesuffix(" Try:") + f" It asks for a token: first set {TOKEN_VARIABLE} to one of api_tokens. Try:"
        )
    return "\n".join([*stand_ins, ready, "", *commands, ""])


def _token_option(settings: Settings) -> str:
    """curl's option that sends the token, as the commands are pasted; "" if none is asked for.

    It names a variable, which `intaglio run` reads too: a token itself would stay in logs and in the shell's history.
    """
    return f'-H "Authorization: Bearer ${TOKEN_VARIABLE}" ' if settings.api_tokens else ""


def _curl(url: str, options: str, body: dict[str, object]) -> str:
    return f"curl {options}{url} -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"


def _show_terms_once(data_path: Path) -> None:
    """Print the notice of Google's terms, under which the bundled model is licensed, the first time it is used."""
    marker = data_path / "gemma-terms-shown"
    if marker.exists():
        return
    print(terms_notice(), flush=True)
    marker.write_text(f"shown to user {os.getuid()}\n", "utf-8")
