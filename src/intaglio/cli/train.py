"""`intaglio train`: from examples to an adapter, and with --publish to a finetune of a running server."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from intaglio.cli.adapter_tables import show_one
from intaglio.cli.adapters import Account, Token, Url
from intaglio.cli.json_output import AsJson, print_json
from intaglio.errors import FinetuneError, RemoteError, SettingsError
from intaglio.hub import is_hub_reference, parse_hub_reference
from intaglio.settings import DEFAULT_MODEL_ID, load_client_settings, load_settings
from intaglio.training.options import TrainingOptions, check_options

if TYPE_CHECKING:
    from intaglio.base_model import BaseModel
    from intaglio.training.run import Trained

_BUNDLED_BASE_NAME = "google/gemma-3-270m"  # the bundled model's name in an adapter's files


def train(
    data: Annotated[Path, typer.Argument(help="JSONL: prompt and completion, or messages, or text, on each line")],
    out: Annotated[Path, typer.Option(help="folder for the adapter; made if missing")],
    model: Annotated[
        str, typer.Option(help="the base: a folder, a .gguf file, hf:OWNER/REPO, or the bundled model's id")
    ] = DEFAULT_MODEL_ID,
    publish: Annotated[
        str | None, typer.Option(help="name of a finetune to upload to; made if missing, else it gets a new version")
    ] = None,
    publish_model: Annotated[
        str | None, typer.Option(help="the server's id of the base [default: the id in --model, or its only base]")
    ] = None,
    description: Annotated[str | None, typer.Option(help="of a new finetune")] = None,
    public: Annotated[bool, typer.Option("--public", help="let other accounts use a new finetune, by its id")] = False,
    url: Url = None,
    account: Account = None,
    token: Token = None,
    as_json: AsJson = False,
    **given: Any,
) -> None:
    """Train a LoRA adapter on examples, evaluate it on held-out ones and, with --publish, upload it to a server.

    Needs torch, transformers and PEFT: `pip install torch==2.13.0` alone, then `pip install 'intaglio[train]'`.

    Example: intaglio train examples.jsonl --out my-adapter --publish my-adapter
    """
    command = command_text(sys.argv[1:])
    options = TrainingOptions(data=data, out=out, base_name=base_name(model), command=command, **given)
    check_options(options)
    server = {"url": url, "account": account, "token": token}
    finetune = {"description": description, "public": public or None}
    if publish is None:
        _refuse_without_publish({"publish_model": publish_model, **server, **finetune})
        trained = _train(options, model, sys.stderr if as_json else sys.stdout)
        if as_json:
            print_json(_as_json(trained, None))
        return
    base = publish_model or (model if model.startswith("@") else None)
    target = _target(server, name=publish, model=base, **finetune)
    trained = _train(options, model, sys.stderr if as_json else sys.stdout)
    found = _publish(options.out, target)
    if as_json:
        print_json(_as_json(trained, found))
    else:
        show_one(found)


def command_text(words: Sequence[str]) -> str:
    """The command for the adapter's card, without the token: the folder may be passed on to others."""
    shown = list(words)
    for index, word in enumerate(words):
        if word == "--token":
            shown[index + 1 : index + 2] = ["..."]
        elif word.startswith("--token="):
            shown[index] = "--token=..."
    return f"intaglio {shlex.join(shown)}"


def base_name(model: str) -> str:
    """The base's name in an adapter's files: of a model of the hub its repository, as PEFT writes it."""
    if is_hub_reference(model):
        return parse_hub_reference(model).repo
    return _BUNDLED_BASE_NAME if model == DEFAULT_MODEL_ID else model


def _refuse_without_publish(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if value is not None:
            raise SettingsError(f"--{name.replace('_', '-')} needs --publish")


def _target(server: Mapping[str, str | None], **finetune: Any) -> dict[str, Any]:
    """The arguments for `publish`, checked with the server before training, which takes hours."""
    from intaglio.client import check_publishable

    settings = load_client_settings(**{name: value for name, value in server.items() if value is not None})
    target = {"url": settings.url, "account": settings.account, "token": settings.token, **finetune}
    check_publishable(**target)
    return target


def _train(options: TrainingOptions, model: str, output: TextIO) -> Trained:
    from intaglio.cli.progress.training import make_report
    from intaglio.engine.memory.available import available_memory
    from intaglio.training.memory import Available
    from intaglio.training.run import check_installed
    from intaglio.training.run import train as run

    check_installed()
    report = make_report(output)
    memory = available_memory()
    trained = run(options, _open_base(model), report, Available(memory.size_bytes, memory.bound))
    report.note(f"the adapter is in {options.out}")
    return trained


def _as_json(trained: Trained, finetune: Mapping[str, Any] | None) -> dict[str, Any]:
    """losses: on the held-out examples, None where there are none. finetune: as `adapters show --json` prints it."""
    before, after = (None if one is None else one.loss for one in (trained.before, trained.after))
    return {
        "folder": str(trained.folder),
        "steps": trained.steps,
        "held_out_loss_before": before,
        "held_out_loss_after": after,
        "finetune": finetune,
    }


def _open_base(model: str) -> BaseModel:
    from intaglio.base_model import BaseModel
    from intaglio.cli.progress.download import download_progress
    from intaglio.model_source import local_model_path

    settings = load_settings()
    if model.startswith("@") and model != DEFAULT_MODEL_ID:
        raise SettingsError(
            f"--model {model} is not bundled; give {DEFAULT_MODEL_ID}, hf:OWNER/REPO, a folder or a .gguf file"
        )
    return BaseModel.open(local_model_path(model, settings, download_progress()), settings)


def _publish(folder: Path, target: Mapping[str, Any]) -> dict[str, Any]:
    from intaglio.cli.progress.transfer import transfer_progress
    from intaglio.client import publish

    try:
        with transfer_progress("sending", after="the server checks and verifies it") as progress:
            return publish(folder, **target, progress=progress)
    except (RemoteError, FinetuneError):
        print(f"the adapter is in {folder}; publish it later with `intaglio adapters upload`", file=sys.stderr)
        raise
