"""`intaglio adapters`: finetunes of a running server from the command line, and a check of a folder without one.

Results go to stdout, as a table or with --json as JSON; progress and errors go to stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from intaglio.cli.adapter_tables import (
    show_deleted,
    show_list,
    show_one,
    show_paths,
    show_public_list,
    show_verification,
)
from intaglio.cli.json_output import AsJson, print_json
from intaglio.cli.progress.transfer import transfer_progress
from intaglio.client import ADAPTER_FILES, Connection, Finetunes, publish
from intaglio.errors import SettingsError
from intaglio.settings import PREFIX, ClientSettings, load_client_settings

_Result = TypeVar("_Result")

Url = Annotated[str | None, typer.Option(help=f"address of the server [env: {PREFIX}URL]")]
Account = Annotated[str | None, typer.Option(help=f"account that owns the finetunes [env: {PREFIX}ACCOUNT]")]
Token = Annotated[str | None, typer.Option(help=f"API token, if the server requires one [env: {PREFIX}TOKEN]")]
Named = Annotated[str, typer.Argument(help="a finetune, by name or id")]
Folder = Annotated[Path, typer.Argument(help="folder that PEFT or MLX-LM saved, or a .gguf adapter of llama.cpp")]


def build_adapters_cli() -> typer.Typer:
    """The commands below `intaglio adapters`."""
    cli = typer.Typer(
        name="adapters",
        help="Adapters of a running server.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    cli.command("list")(list_adapters)
    for command in (show, upload, check, rollback, delete, download):
        cli.command(command.__name__)(command)
    return cli


def list_adapters(
    public: Annotated[
        bool, typer.Option("--public", help="list the public finetunes of all accounts and the demo adapters")
    ] = False,
    url: Url = None,
    account: Account = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List the account's finetunes.

    Example: intaglio adapters list --public
    """
    with _finetunes(url, account, token) as finetunes:
        found = finetunes.list_public() if public else finetunes.list_own()
    _print(found, as_json, show_public_list if public else show_list)


def show(name: Named, url: Url = None, account: Account = None, token: Token = None, as_json: AsJson = False) -> None:
    """Show one finetune: its files, verification, versions, and the progress of an upload.

    Example: intaglio adapters show my-adapter --json
    """
    with _finetunes(url, account, token) as finetunes:
        found = finetunes.read(name)
    _print(found, as_json, show_one)


def upload(
    folder: Folder,
    name: Annotated[str, typer.Option(help="name of the finetune; created if missing, else it gets a new version")],
    model: Annotated[
        str | None, typer.Option(help="the base it was trained on [default: the only one of the server]")
    ] = None,
    description: Annotated[str | None, typer.Option(help="description of a new finetune")] = None,
    public: Annotated[
        bool | None, typer.Option("--public/--private", help="whether other accounts may use it, by its id")
    ] = None,
    url: Url = None,
    account: Account = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Upload an adapter. Returns when the server has verified it; one that is refused leaves nothing on the server.

    Example: intaglio adapters upload ./my-adapter --name my-adapter
    """
    settings = client_settings(url, account, token)
    with transfer_progress("sending", after="the server checks and verifies it") as progress:
        found = publish(
            folder,
            url=settings.url,
            account=settings.account,
            token=settings.token,
            name=name,
            model=model,
            description=description,
            public=public,
            progress=progress,
        )
    _print(found, as_json, show_one)


def check(
    folder: Folder,
    model: Annotated[
        str | None, typer.Option(help="the base: a folder, a .gguf file or hf:OWNER/REPO [default: the bundled model]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify an adapter without a server: read it, run it and compare it with its reference on this machine.

    Example: intaglio adapters check ./my-adapter
    """
    from intaglio.cli.check_adapter import verify_folder  # here, since it loads the engine

    _print(verify_folder(folder, model), as_json, show_verification)


def rollback(
    name: Named,
    to: Annotated[int | None, typer.Option(help="number of an earlier version [default: the previous version]")] = None,
    url: Url = None,
    account: Account = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version current again, as a new version.

    Example: intaglio adapters rollback my-adapter --to 3
    """
    with _finetunes(url, account, token) as finetunes:
        found = finetunes.rollback(name, to)
    _print(found, as_json, show_one)


def delete(name: Named, url: Url = None, account: Account = None, token: Token = None, as_json: AsJson = False) -> None:
    """Delete a finetune with all its files. Running requests finish.

    Example: intaglio adapters delete my-adapter
    """
    with _finetunes(url, account, token) as finetunes:
        gone = finetunes.delete(name)
    _print(gone, as_json, show_deleted)


def download(
    name: Named,
    out: Annotated[Path, typer.Option(help="folder for the two files; created if missing")],
    url: Url = None,
    account: Account = None,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Download the two files of a finetune.

    Example: intaglio adapters download my-adapter --out ./my-adapter
    """
    paths = [out / file_name for file_name in ADAPTER_FILES]
    with _finetunes(url, account, token) as finetunes, _unwritable_as_error(out):
        _make_folder(out, paths)
        with transfer_progress("fetching") as progress:
            for path in paths:
                finetunes.download(name, path.name, path, progress)
    _print([str(path) for path in paths], as_json, show_paths)


@contextmanager
def _finetunes(url: str | None, account: str | None, token: str | None) -> Iterator[Finetunes]:
    settings = client_settings(url, account, token)
    with Connection(settings.url, settings.account, settings.token) as connection:
        yield Finetunes(connection)


def client_settings(url: str | None, account: str | None, token: str | None) -> ClientSettings:
    given = {"url": url, "account": account, "token": token}
    return load_client_settings(**{name: value for name, value in given.items() if value is not None})


@contextmanager
def _unwritable_as_error(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(f"--out {out} cannot be written: {error.strerror or error}") from error


def _make_folder(out: Path, paths: list[Path]) -> None:
    """Raises SettingsError if one of the files exists."""
    out.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if path.exists():
            raise SettingsError(f"{path} already exists; name another folder with --out")


def _print(result: _Result, as_json: bool, show_it: Callable[[_Result], None]) -> None:
    if as_json:
        print_json(result)
    else:
        show_it(result)
