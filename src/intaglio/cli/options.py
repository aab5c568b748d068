"""Every field of `Settings` as a command-line option, so that an option is written down once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined

from intaglio.settings import PREFIX, Settings


def with_settings_options(command: Callable[[dict[str, Any]], None]) -> Callable[..., None]:
    """Give a command one option per setting. It is called with the options that the user gave, by field name."""

    def run(**options: Any) -> None:
        given = {name: value for name, value in options.items() if value is not None and value != []}
        command(given)

    hints = typing.get_type_hints(Settings)
    parameters = [_parameter(name, hints[name]) for name in Settings.model_fields]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__doc__ = command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(name: str, hint: Any) -> inspect.Parameter:
    field = Settings.model_fields[name]
    default = "" if field.default in (None, (), PydanticUndefined) else f" [default: {field.default}]"
    kind = _parsed_type(hint)
    option = typer.Option(
        help=f"{field.description}{default} [env: {PREFIX}{name.upper()}]",
        show_default=False,
        rich_help_panel="Settings",
        metavar="INTEGER" if kind is int else None,
    )
    parsed_as: Any = str if kind is int else kind
    annotation = Annotated[parsed_as | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parsed_type(hint: Any) -> Any:
    """The type that typer parses. Whole numbers are passed on as text: the message of `Settings` names the bounds."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _parsed_type(next(part for part in get_args(hint) if part is not type(None)))
    if origin is tuple:
        return list[str]
    if origin is Literal:
        return str
    return hint
