"""Settings from a TOML file: the same names as in `Settings`, and a table of models.

    port = 8080
    context_window = 3500

    [models]
    "@cf/google/gemma-7b-it-lora" = "hf:google/gemma-7b-it"
    "@local/mine" = "checkpoints/mine"                         # relative to the folder of the file

A value of another type than the setting's, and a key that is not a setting, are refused with the key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from intaglio.errors import SettingsError
from intaglio.wording.similar import meant_or

MODELS = "models"  # the table; the setting is `model`
BUNDLED = "bundled"  # in that table: the model that comes with the package

_MAX_BYTES = 1 << 20
_NAMES = {bool: "true or false", int: "a whole number", str: "a string", list: "a list of strings"}


def read_config_file(path: Path, fields: Mapping[str, FieldInfo], bundled_id: str) -> dict[str, Any]:
    """The settings of a file, by name, with its relative paths made absolute.

    fields      of `Settings`, without the one that names this file
    bundled_id  of the model that `BUNDLED` stands for
    Raises SettingsError naming file and key.
    """
    given = _read(path)
    if MODELS in given and "model" in given:
        raise SettingsError(f"{path}: both model and [{MODELS}] are given; one of them is needed")
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key == MODELS:
            values["model"] = _model_entries(path, value, bundled_id)
        elif key not in fields:
            raise SettingsError(f"{path}: unknown key {key!r}; {_advice(key, value, fields)}")
        else:
            _check_type(path, key, value, fields[key])
            values[key] = value
    return _with_absolute_paths(path, values, fields)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SettingsError(f"config {path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise SettingsError(f"config {path} has more than {_MAX_BYTES} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise SettingsError(f"config {path} is not valid TOML: {error}") from error


def _model_entries(path: Path, table: object, bundled_id: str) -> list[str]:
    """The table as entries of the setting `model`: ID=SOURCE, or the bundled model's id alone."""
    if not isinstance(table, dict):
        raise SettingsError(f'{path}: {MODELS} is {table!r}; a table is needed: [{MODELS}], then "ID" = "PATH"')
    entries = []
    for model_id, source in table.items():
        if not isinstance(source, str) or not source or "=" in model_id:
            raise SettingsError(
                f'{path}: {model_id!r} in [{MODELS}] is {source!r}; "ID" = "PATH" or "ID" = "hf:OWNER/REPO" is needed'
            )
        named = bundled_id if source == BUNDLED else source
        entries.append(model_id if model_id == named == bundled_id else f"{model_id}={named}")
    return entries


def _advice(key: str, value: object, fields: Mapping[str, FieldInfo]) -> str:
    """The setting that an unknown key probably means."""
    known = [*fields, MODELS]
    if isinstance(value, dict):
        return meant_or(key, known, f"settings are keys at the top of the file; its only table is [{MODELS}]")
    return meant_or(key, known, f"known: {', '.join(known)}")


def _check_type(path: Path, key: str, value: object, field: FieldInfo) -> None:
    """Raises SettingsError if a value is not of the TOML type of its setting; bounds are checked by `Settings`."""
    needed = _toml_type(field.annotation)
    right = type(value) is needed
    if needed is list and isinstance(value, list):
        right = all(isinstance(item, str) for item in value)
    if not right:
        shown = repr(value) if field.repr else "not shown here"
        raise SettingsError(f"{path}: {key} is {shown}; {_NAMES[needed]} is needed ({field.description})")


def _toml_type(hint: Any) -> type:
    if get_origin(hint) is tuple:
        return list
    if get_origin(hint) is Literal:
        return str
    for part in (hint, *get_args(hint)):
        if part in (bool, int):
            return bool if part is bool else int
    return str


def _with_absolute_paths(path: Path, values: dict[str, Any], fields: Mapping[str, FieldInfo]) -> dict[str, Any]:
    """The values with every relative path resolved against the folder of the file."""
    folder = path.absolute().parent
    found = dict(values)
    for key, value in values.items():
        if fields[key].annotation is Path:
            found[key] = _absolute(folder, value)
        elif key == "model":
            found[key] = [_absolute_source(folder, entry) for entry in value]
        elif key == "tokenizer" and value not in {entry.partition("=")[0] for entry in values.get("model", ())}:
            found[key] = _absolute(folder, value)
    return found


def _absolute_source(folder: Path, entry: str) -> str:
    model_id, equals, source = entry.partition("=")
    return f"{model_id}={_absolute(folder, source)}" if equals and source else entry


def _absolute(folder: Path, source: str) -> str:
    """A path from the folder, unless it is absolute, in a home folder, of the hub, or the id of a model."""
    return source if source.startswith(("/", "~", "hf:", "@")) else str(folder / source)
