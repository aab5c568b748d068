"""One adapter in the reference backend, what a pair adds to a product, and the arrays that are stored on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from intaglio.ops import AdapterProjection, Array, LoraPair, TokenRows
from intaglio.ops.reference.weight import MatrixWeight, products

F32 = npt.NDArray[np.float32]

_MAX_NORMS = 2  # of one projection


@dataclass(frozen=True, slots=True)
class ReferenceAdapter:
    """An unchanged adapter, projection by projection, and the DoRA gains of its pairs."""

    projections: Sequence[AdapterProjection]
    gains: Sequence[Sequence[F32 | None]]


def with_pair(base: F32, shrunk: F32, pair: LoraPair, gain: F32 | None, scale: float) -> F32:
    """The formula of `LoraPair`: base [rows, out] and x · aᵀ [rows, rank] -> [rows, out]. gain is [out] or None."""
    total: F32 = base + products(shrunk * np.asarray(pair.scale, np.float32) * np.float32(scale), pair.b)
    if pair.bias is not None:
        total += np.float32(scale) * pair.bias
    return total if gain is None else total * gain


def adapter_arrays(adapter: ReferenceAdapter) -> dict[str, Array]:
    """The arrays that `adapter_from_arrays` needs."""
    return {
        f"{index} {name}": np.asarray(array)
        for index, (projection, gains) in enumerate(zip(adapter.projections, adapter.gains, strict=True))
        for name, array in _projection_arrays(projection, gains)
    }


def adapter_from_arrays(arrays: Mapping[str, Array], projections: Sequence[Sequence[MatrixWeight]]) -> ReferenceAdapter:
    """The adapter over the base's matrices of each projection. Raises ValueError if it has more projections."""
    by_projection: list[dict[str, Array]] = [{} for _ in projections]
    for name, array in arrays.items():
        index, _, rest = name.partition(" ")
        if int(index) >= len(projections):
            raise ValueError("an adapter of another model")
        by_projection[int(index)][rest] = array
    read = [_projection_from_arrays(weights, found) for weights, found in zip(projections, by_projection, strict=True)]
    return ReferenceAdapter([projection for projection, _ in read], [gains for _, gains in read])


def _projection_arrays(projection: AdapterProjection, gains: Sequence[F32 | None]) -> Iterator[tuple[str, Array]]:
    for place, (pair, gain) in enumerate(zip(projection.pairs, gains, strict=True)):
        if pair is not None:
            parts = {"a": pair.a, "b": pair.b, "scale": pair.scale, "bias": pair.bias, "gain": gain}
            yield from ((f"{name} {place}", part) for name, part in parts.items() if part is not None)
    yield from ((f"norm {place}", norm) for place, norm in enumerate(projection.norms) if norm is not None)
    if projection.table is not None:
        yield "table", projection.table.rows(np.arange(projection.table.shape[0], dtype=np.int32))
    if projection.rows is not None:
        yield from (("ids", projection.rows.ids), ("rows", projection.rows.rows))


def _projection_from_arrays(
    weights: Sequence[MatrixWeight], arrays: Mapping[str, Array]
) -> tuple[AdapterProjection, Sequence[F32 | None]]:
    places = range(len(weights))
    pairs = [
        LoraPair(arrays[f"a {i}"], arrays[f"b {i}"], arrays[f"scale {i}"], arrays.get(f"bias {i}"))
        if f"a {i}" in arrays
        else None
        for i in places
    ]
    norms = [arrays.get(f"norm {place}") for place in range(_MAX_NORMS)]
    table = MatrixWeight(arrays["table"], "f32") if "table" in arrays else None
    rows = TokenRows(arrays["ids"], arrays["rows"]) if "ids" in arrays else None
    return AdapterProjection(weights, pairs, norms, table, rows), [arrays.get(f"gain {i}") for i in places]
