"""The models that a body names: a base, a base and an adapter as `<base>:<adapter>`, or an adapter alone."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

from starlette.requests import HTTPConnection

from intaglio.api.catalogue import HOSTED
from intaglio.api.state import ServerState
from intaglio.errors import FinetuneNotFoundError, ModelNotFoundError

_PROVIDER = "workers-ai/"


class NamedModel(NamedTuple):
    """adapter: name or id; None where the base alone is named."""

    base: str
    adapter: str | None = None


def split_model(model: str, served: Collection[str]) -> NamedModel:
    """Base and adapter of `<base>` or `<base>:<adapter>`. Only the last colon divides, and only if it has to.

    An AI Gateway names the provider too, `workers-ai/<base>`: where that is no id itself, the provider is left out.
    """
    if model in served:
        return NamedModel(model)
    model = model.removeprefix(_PROVIDER)
    base, colon, adapter = model.rpartition(":")
    return NamedModel(base, adapter) if colon and base in served else NamedModel(model)


async def find_model(state: ServerState, account: str, model: str) -> NamedModel:
    """What a body's `model` names; an adapter alone is looked up for its base.

    Raises ModelNotFoundError naming the models and adapters that resemble it.
    """
    named = split_model(model, known_models(state))
    if state.find_llm(named.base) is not None or named.base in HOSTED:
        return named
    try:
        finetune = await asyncio.to_thread(state.finetunes.find, account, named.base)
    except FinetuneNotFoundError as error:
        raise state.no_such_model(model, error.similar) from error
    return NamedModel(finetune.model, named.base)


async def check_base(state: ServerState, account: str, model: str) -> None:
    """Raise unless a loaded base answers for that id: ModelWithoutWeightsError, or ModelNotFoundError.

    For a place where only a base may be named: the error for an adapter's name says how to name it.
    """
    if state.find_llm(model) is not None:
        return
    named = await find_model(state, account, model)
    if named.adapter is not None:
        raise ModelNotFoundError(
            f"No such model {model} or task. {named.adapter} is an adapter of {named.base}: run that model with "
            f'"lora": "{named.adapter}"'
        )
    state.llm(model)


def note_stand_in(state: ServerState, request: HTTPConnection, sent: object) -> None:
    """For the header of errors: even a body that is refused says which model it is for."""
    if isinstance(sent, dict) and isinstance(sent.get("model"), str):
        request.state.answered_by = state.stand_ins.get(split_model(sent["model"], known_models(state)).base)


def known_models(state: ServerState) -> set[str]:
    """The ids of bases: of those that are served, and of those that have no weights here."""
    return {*state.models, *HOSTED}
