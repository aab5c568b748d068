"""The `intaglio` command: reads options, calls the package that does the work, prints results and errors.

`serve` starts the API; `adapters` and `models` talk to a running server through `client`; `chat` and `run` do too, or
run a model in this process, as `train` and `eval` do; `pack` writes a file of packed weights; `doctor` looks at the
machine.
Does not know how anything is computed, stored or sent.
"""

from __future__ import annotations

import platform
import sys
from typing import Annotated, Any

import typer

from intaglio.cli.adapters import build_adapters_cli
from intaglio.cli.conversation.chat import chat
from intaglio.cli.conversation.run import run
from intaglio.cli.doctor import doctor
from intaglio.cli.evaluate import evaluate
from intaglio.cli.json_output import AsJson, print_json
from intaglio.cli.models import models
from intaglio.cli.options import with_settings_options
from intaglio.cli.pack import pack
from intaglio.cli.train import train
from intaglio.cli.training_options import with_training_options
from intaglio.errors import IntaglioError, TrainingInterruptedError
from intaglio.version import __version__

__all__ = ["main"]

_INTERRUPTED = 130  # the exit status that shells report after Ctrl-C; typer uses it too


def build_cli() -> typer.Typer:
    cli = typer.Typer(
        name="intaglio",
        help="One Gemma, any number of LoRA adapters, behind the API of Cloudflare Workers AI.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # square brackets in the help are literal text
    )
    cli.callback()(_options)
    cli.command("serve")(with_settings_options(_serve))
    cli.command("chat")(chat)
    cli.command("run")(run)
    cli.command("models")(models)
    cli.add_typer(build_adapters_cli())
    cli.command("train")(with_training_options(train))
    cli.command("eval")(evaluate)
    cli.command("pack")(pack)
    cli.command("doctor")(doctor)
    cli.command("version")(_version)
    return cli


def _show_version(wanted: bool) -> None:
    if wanted:
        _version()
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and end", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """One Gemma, any number of LoRA adapters, behind the API of Cloudflare Workers AI."""


def _serve(options: dict[str, Any]) -> None:
    """Serve the API and the playground until interrupted.

    Example: intaglio serve --port 8081
    """
    from intaglio.settings import load_settings

    settings = load_settings(**options)
    from intaglio.cli.serve import serve  # here, so that `intaglio --help` and invalid settings are quick

    serve(settings)


def _version(as_json: AsJson = False) -> None:
    """Print the version.

    Example: intaglio version --json
    """
    if as_json:
        print_json({"version": __version__, "python": platform.python_version(), "platform": platform.platform()})
    else:
        print(__version__)


def main() -> None:
    """Entry point. An IntaglioError is printed as one sentence, with status 1, not as a traceback; Ctrl-C has 130."""
    try:
        build_cli()()
    except IntaglioError as error:
        print(f"intaglio: {error}", file=sys.stderr)
        sys.exit(_INTERRUPTED if isinstance(error, TrainingInterruptedError) else 1)
