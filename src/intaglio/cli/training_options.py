"""Every field of `TrainingOptions` as a command-line option, so that an option is written down once."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any

import typer

from intaglio.training.options import TrainingOptions

_COMMA = ","


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option per field of `TrainingOptions` to a command's own options; the command gets them as `**given`.

    Fields without help text in `TrainingOptions` are left to the command.
    """

    def run(**options: Any) -> None:
        options["targets"] = tuple(name.strip() for name in options["targets"].split(_COMMA) if name.strip())
        command(**options)

    signature = inspect.signature(command, eval_str=True)
    of_command = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = typing.get_type_hints(TrainingOptions)
    of_training = [_parameter(one, hints[one.name]) for one in fields(TrainingOptions) if "help" in one.metadata]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*of_command, *of_training)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__doc__ = command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _parameter(option: Field[Any], hint: Any) -> inspect.Parameter:
    assert option.default is not MISSING, f"{option.name} has help but no default"
    default, names = option.default, []
    if hint is bool:
        names = [f"--{option.name.replace('_', '-')}"]  # a flag without a --no- form
    elif isinstance(default, tuple):
        hint, default = str, _COMMA.join(default)
    annotation = Annotated[hint, typer.Option(*names, help=option.metadata["help"])]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
