"""Options that `chat` and `run` share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from intaglio.errors import BadInputError

Model = Annotated[
    str | None,
    typer.Option(help="a model that the server has; or a folder, a .gguf file or hf:OWNER/REPO, which runs here"),
]
Adapter = Annotated[
    str | None, typer.Option(help="an adapter by name; without a server also a folder or a .gguf adapter")
]
MaxTokens = Annotated[int, typer.Option(help="tokens of an answer at most")]
Temperature = Annotated[float | None, typer.Option(help="0 takes the best token; higher varies more [default: 0.6]")]
TopP = Annotated[float | None, typer.Option(help="sample from the best tokens of this probability together")]
Seed = Annotated[int | None, typer.Option(help="the same seed gives the same answer")]
System = Annotated[str | None, typer.Option(help="instructions for the whole conversation")]


def read_schema(text: str | None) -> dict[str, Any] | None:
    """A JSON schema that is given as text or as the path of a file. Raises BadInputError."""
    if text is None:
        return None
    try:
        schema = json.loads(text if text.lstrip().startswith("{") else Path(text).read_text("utf-8"))
    except OSError as error:
        raise BadInputError(f"--json-schema {text}: {error.strerror or error}") from error
    except ValueError as error:
        raise BadInputError(f"--json-schema is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise BadInputError(f"--json-schema is {json.dumps(schema)}; a JSON object is needed")
    return schema
