"""Served models that answer under ids which have no weights here, so that client code can be tried without them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from intaglio.api.catalogue import HOSTED
from intaglio.api.http.errors import STAND_IN_HEADER
from intaglio.errors import SettingsError
from intaglio.wording.similar import meant_or


def stand_in_headers(answered_by: str | None) -> dict[str, str]:
    """The header that names the model that answered in place of the requested one; empty if none did."""
    return {} if answered_by is None else {STAND_IN_HEADER: answered_by}


def read_stand_ins(entries: Sequence[str], served: Collection[str]) -> dict[str, str]:
    """Id without weights -> id of the served model that answers, from entries ID or ID=SERVED_ID.

    Raises SettingsError naming the entry and what is needed.
    """
    found: dict[str, str] = {}
    for entry in entries:
        model_id, _, answering = entry.partition("=")
        _check_id(model_id, served)
        if model_id in found:
            raise SettingsError(f"stand_in {model_id!r} is given twice")
        found[model_id] = answering or _only_one(model_id, served)
        if found[model_id] not in served:
            raise SettingsError(
                f"stand_in {entry!r}: {found[model_id]!r} is not served here; served: {', '.join(served)}"
            )
    return found


def _check_id(model_id: str, served: Collection[str]) -> None:
    if model_id in served:
        raise SettingsError(f"stand_in {model_id!r}: this server has weights for it, so it needs no stand-in")
    if model_id not in HOSTED:
        advice = meant_or(model_id, HOSTED, f"known: {', '.join(HOSTED)}")
        raise SettingsError(f"stand_in {model_id!r} is not a model of the catalogue; {advice}")


def _only_one(model_id: str, served: Collection[str]) -> str:
    if len(served) > 1:
        raise SettingsError(
            f"stand_in {model_id!r} does not say which of the served models answers; "
            f"name one: {', '.join(f'{model_id}={one}' for one in served)}"
        )
    return next(iter(served))
