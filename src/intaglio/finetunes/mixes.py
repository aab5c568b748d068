"""Several adapters in one request: which may be combined, and at which scales."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from intaglio.errors import BadInputError, FinetuneError
from intaglio.request import MAX_ADAPTERS, AdapterRef, ScaledAdapter, Verification, canonical_mix, check_scales


class FoundAdapter(NamedTuple):
    """An adapter named in a request, and its verification."""

    name: str
    ref: AdapterRef
    verification: Verification | None


def check_mix(adapters: Sequence[tuple[str, float]]) -> None:
    """Raise BadInputError for too many adapters, or for a scale out of bounds, naming its adapter."""
    if len(adapters) > MAX_ADAPTERS:
        raise BadInputError(f"lora names {len(adapters)} adapters; the limit is {MAX_ADAPTERS} per request")
    check_scales([(repr(name), scale) for name, scale in adapters])


def combine(adapters: Sequence[tuple[FoundAdapter, float]]) -> tuple[ScaledAdapter, ...]:
    """The adapters as the engine takes them: in order of digest, without those of scale 0.

    Raises FinetuneError if two names are the same adapter, or if an adapter that replaces parts of the base is mixed or
    scaled. Demo adapters have no verification here; they all only add. The engine checks this again.
    """
    names: dict[str, str] = {}
    for found, _ in adapters:
        if found.ref.digest in names:
            same = f"adapters {names[found.ref.digest]!r} and {found.name!r} of this request are the same"
            raise FinetuneError(f"{same}; name one of them, with the sum of the scales")
        names[found.ref.digest] = found.name
    effective = [(found, scale) for found, scale in adapters if scale]
    for found, scale in effective:
        if found.verification is None or found.verification.scalable or (len(effective) == 1 and scale == 1):
            continue
        use = f"scaled by {scale:g}" if scale != 1 else f"mixed with {len(effective) - 1} others"
        raise FinetuneError(
            f"adapter {found.name!r} replaces parts of the base model, not only adds to it: it cannot be {use}, "
            "only used alone and with scale 1"
        )
    return canonical_mix([ScaledAdapter(found.ref, scale) for found, scale in effective])
