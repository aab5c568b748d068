"""Several adapters in one request: which may be combined, and at which scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from intaglio.errors import BadInputError, FinetuneError
from intaglio.request import MAX_ADAPTERS, AdapterRef, ScaledAdapter, Verification, canonical_mix, check_scales


class Found(NamedTuple):
    """An adapter named in a request, and its verification."""

    name: str
    ref: AdapterRef
    verification: Verification | None


def check_mix(adapters: Sequence[tuple[str, float]]) -> None:
    """Raise BadInputError, naming the adapter, for more adapters or larger scales than one request may have."""
    if len(adapters) > MAX_ADAPTERS:
        raise BadInputError(f"lora names {len(adapters)} adapters, and {MAX_ADAPTERS} are the most in one request")
    check_scales([(repr(name), scale) for name, scale in adapters])


def mixed(adapters: Sequence[tuple[Found, float]]) -> tuple[ScaledAdapter, ...]:
    """What the engine gets: those with an effect, in order of digest.

    Raises FinetuneError if two names are one adapter, or if one that replaces parts of the base (and so cannot be added
    in part) does not stand alone at scale 1. Demo adapters, which have no verification here, only add. The engine
    checks it again.
    """
    names: dict[str, str] = {}
    for found, _ in adapters:
        if found.ref.digest in names:
            same = f"adapters {names[found.ref.digest]!r} and {found.name!r} of this request are the same"
            raise FinetuneError(f"{same}; name one of them, with the sum of the scales")
        names[found.ref.digest] = found.name
    used = [(found, scale) for found, scale in adapters if scale]
    for found, scale in used:
        if found.verification is None or found.verification.scalable or (len(used) == 1 and scale == 1):
            continue
        asked = f"scaled by {scale:g}" if scale != 1 else f"mixed with {len(used) - 1} others"
        raise FinetuneError(
            f"adapter {found.name!r} replaces parts of the base model, not only adds to it: it cannot be {asked}, "
            "only used alone and with scale 1"
        )
    return canonical_mix([ScaledAdapter(found.ref, scale) for found, scale in used])
