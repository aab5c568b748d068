"""`intaglio run`: one prompt, one completion, on standard output as it is computed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from intaglio.cli.adapters import Account, Token, Url, client_settings
from intaglio.cli.conversation.options import Adapter, MaxTokens, Model, Seed, System, Temperature, TopP, read_schema
from intaglio.cli.conversation.source import Chat, Sampling, open_source
from intaglio.cli.json_output import AsJson, print_json
from intaglio.client import Piece
from intaglio.errors import BadInputError


def run(
    prompt: Annotated[str | None, typer.Argument(help="the prompt [default: standard input]")] = None,
    model: Model = None,
    adapter: Adapter = None,
    system: System = None,
    raw: Annotated[bool, typer.Option("--raw", help="the prompt as it stands, without the turns of a chat")] = False,
    json_schema: Annotated[
        str | None, typer.Option(help="a JSON schema, or the path of one, that the completion follows")
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option(help="end before this text; repeatable")] = None,
    url: Url = None,
    account: Account = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Complete one prompt. Uses a running server, or runs the model itself where there is none.

    Example: echo "The app crashes" | intaglio run --adapter intaglio-triage
    """
    text = _read_prompt(prompt)
    if raw and system is not None:
        raise BadInputError("--raw and --system were both given; a raw prompt has no system text")
    sampling = Sampling(max_tokens, temperature, top_p, seed, tuple(stop or ()), read_schema(json_schema))
    messages = [{"role": "system", "content": system}] if system is not None else []
    asked: str | Chat = text if raw else [*messages, {"role": "user", "content": text}]
    with open_source(client_settings(url, account, token), model) as source:
        pieces = [_shown(piece, as_json) for piece in source.stream(asked, adapter, sampling)]
        if as_json:
            last = pieces[-1]
            completion = {
                "model": source.model,
                "adapter": adapter,
                "text": "".join(piece.text for piece in pieces),
                "finish_reason": last.finish_reason,
                "prompt_tokens": last.prompt_tokens,
                "completion_tokens": last.completion_tokens,
            }
            print_json(completion)
        else:
            print()
            if pieces[-1].finish_reason == "length":
                print(f"(cut after {pieces[-1].completion_tokens} tokens; --max-tokens allows more)", file=sys.stderr)


def _shown(piece: Piece, as_json: bool) -> Piece:
    if not as_json:
        print(piece.text, end="", flush=True)
    return piece


def _read_prompt(prompt: str | None) -> str:
    """Raises BadInputError without a prompt."""
    if prompt is None:
        if sys.stdin.isatty():
            raise BadInputError('no prompt was given; for example: intaglio run "Where is my refund?"')
        try:
            prompt = sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise BadInputError(f"standard input is not UTF-8: {error}") from error
    if not prompt:
        raise BadInputError("the prompt is empty")
    return prompt
