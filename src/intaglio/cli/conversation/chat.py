"""`intaglio chat`: a conversation in the terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from intaglio.cli.adapters import Account, Token, Url, client_settings
from intaglio.cli.conversation.options import Adapter, Model, Seed, System, TopP
from intaglio.cli.conversation.session import Session, shown
from intaglio.cli.conversation.source import Chat, Sampling, Source, open_source
from intaglio.client import Piece
from intaglio.demo_adapters import ASSISTANT
from intaglio.errors import IntaglioError
from intaglio.settings import load_settings

_HISTORY_FILE = "chat-history"  # in the data folder
_HISTORY_LINES = 1000
_MAX_TOKENS = 512  # of an answer, where the adapter's card says nothing
_NARROWEST = 30  # columns of an answer; narrower terminals show them one below the other


def chat(
    model: Model = None,
    adapter: Adapter = None,
    system: System = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="tokens of an answer at most [default: what the adapter's card suggests, or 512]")
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="0 takes the best token; higher varies more [default: what the adapter's card suggests, or 0.6]"
        ),
    ] = None,
    top_p: TopP = None,
    seed: Seed = None,
    url: Url = None,
    account: Account = None,
    token: Token = None,
) -> None:
    """Talk to a model. Uses a running server, or runs the model itself where there is none. /help lists the commands.

    A pre-trained base is asked with the adapter intaglio-chat if there is one; `--adapter base` asks it alone.

    Example: intaglio chat --adapter intaglio-triage
    """
    with open_source(client_settings(url, account, token), model) as source:
        limits = source.adapters()
        session = Session(sorted(limits), system=system)
        if adapter is not None:
            session.adapter = session.checked(adapter)
        elif ASSISTANT in session.available and source.is_pretrained():
            session.adapter = ASSISTANT
        print(_greeting(source, session))
        given = Sampling(max_tokens, temperature, top_p, seed)

        def complete(messages: Chat, name: str | None) -> Iterator[Piece]:
            suggested = {} if name is None else limits.get(name, {})
            return source.stream(messages, name, given.or_suggested({"max_tokens": _MAX_TOKENS, **suggested}))

        console = Console(highlight=False)
        for line in _lines():
            try:
                if line.startswith("/"):
                    print(session.run_command(line))
                else:
                    _answer(complete, session, line, console)
            except EOFError:
                return
            except IntaglioError as error:
                print(f"intaglio: {error}", file=sys.stderr)


def _greeting(source: Source, session: Session) -> str:
    lines = [f"{source.model} in {source.place}, with {shown(session.adapter)}. /help lists the commands, Ctrl-D ends."]
    if session.adapter == ASSISTANT:
        lines.append(f"{ASSISTANT} makes a small assistant of this base, which often errs; /adapter chooses another.")
    if session.adapter is None and source.is_pretrained():
        lines.append("This base is pre-trained: alone it goes on with a text instead of answering; choose an /adapter.")
    return "\n".join(lines)


def _lines() -> Iterator[str]:
    """What is typed, or the lines of a pipe, up to the end. Ctrl-C drops the line."""
    is_typed = sys.stdin.isatty()
    with _line_history() if is_typed else _nothing():
        while True:
            try:
                line = input("> " if is_typed else "").strip()
            except KeyboardInterrupt:
                print("\n(Ctrl-D ends)")
                continue
            except EOFError:
                print()
                return
            if line:
                yield line


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _line_history() -> Iterator[None]:
    """Arrow keys bring back earlier lines, also of earlier conversations."""
    try:
        import readline  # also makes input() edit lines
    except ImportError:  # Python may be built without it
        yield
        return
    path = load_settings().data_path / _HISTORY_FILE
    readline.set_history_length(_HISTORY_LINES)
    if path.exists():
        readline.read_history_file(path)
    try:
        yield
    finally:
        _write_history(path, readline.write_history_file)


def _write_history(path: Path, write: Callable[[str], None]) -> None:
    """Only this user may read it."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        write(str(path))
    except OSError as error:
        print(f"intaglio: the history of lines could not be kept in {path}: {error.strerror}", file=sys.stderr)


def _answer(
    complete: Callable[[Chat, str | None], Iterator[Piece]], session: Session, question: str, console: Console
) -> None:
    """Print the answer, or the answers side by side, as they come. Ctrl-C ends them; what has come is kept."""
    messages = session.asked(question)
    answers = [Answer(name) for name in session.answering]
    if len(answers) == 1:
        try:
            for piece in answers[0].pieces(complete(messages, answers[0].adapter)):
                print(piece.text, end="", flush=True)
        except KeyboardInterrupt:
            answers[0].reason = "stopped"
        finally:
            print()
        console.print(Text(f"{shown(answers[0].adapter)} · {answers[0].summary}", style="dim"))
    else:
        _compare(answers, lambda answer: complete(messages, answer.adapter), console)
    session.keep(question, answers[0].text)


@dataclass
class Answer:
    """An answer as it grows. reason: why it ended, or the sentence of the error that ended it."""

    adapter: str | None
    text: str = ""
    reason: str = ""
    tokens: int = 0
    seconds_to_first: float = 0.0
    seconds: float = 0.0
    is_cancelled: threading.Event = field(default_factory=threading.Event)

    def pieces(self, stream: Iterator[Piece]) -> Iterator[Piece]:
        """Passes the pieces on and counts. A generator is closed when this one is, which ends the request."""
        begin = time.perf_counter()
        with closing(cast("Generator[Piece]", stream)):
            for piece in stream:
                self.seconds = time.perf_counter() - begin
                self.seconds_to_first = self.seconds_to_first or self.seconds
                self.text += piece.text
                self.tokens = piece.completion_tokens or self.tokens
                self.reason = piece.finish_reason or self.reason
                yield piece
                if self.is_cancelled.is_set():
                    self.reason = "stopped"
                    return

    def take(self, stream: Iterator[Piece]) -> None:
        """All pieces. An error becomes the reason, since other answers go on."""
        try:
            for _ in self.pieces(stream):
                pass
        except IntaglioError as error:
            self.reason = str(error)

    @property
    def summary(self) -> str:
        """One line: why it ended, how fast."""
        parts = [self.reason or "…"]
        if self.tokens:
            parts.append(f"{self.tokens} tokens")
            generating = self.seconds - self.seconds_to_first
            if self.tokens > 1 and generating > 0:
                parts.append(f"{(self.tokens - 1) / generating:.0f} tokens/s")
        if self.seconds_to_first:
            parts.append(f"first after {self.seconds_to_first:.2f} s")
        return " · ".join(parts)


def _compare(answers: list[Answer], stream: Callable[[Answer], Iterator[Piece]], console: Console) -> None:
    """All answers side by side: they are computed in one batch."""
    threads = [threading.Thread(target=one.take, args=(stream(one),), daemon=True) for one in answers]
    with Live(console=console, refresh_per_second=12, get_renderable=lambda: _side_by_side(answers, console)) as live:
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            for one in answers:
                one.is_cancelled.set()
            for thread in threads:
                thread.join()
        live.refresh()
    console.print()


def _side_by_side(answers: list[Answer], console: Console) -> Columns:
    width = max(_NARROWEST, console.width // len(answers) - 1)
    return Columns([_panel(one, width) for one in answers])


def _panel(answer: Answer, width: int) -> Panel:
    text = Group(Text(answer.text.strip()), Text(answer.summary, style="dim"))
    return Panel(text, title=shown(answer.adapter), width=width)
