"""One adapter in the C++ backend, and a step's plan of which rows have which adapter.

The low-rank matrices, their vectors and the norms are in C++ memory, which every kernel call reads. Replacements of
whole tables and of rows are rare and used at most twice in a forward, so they stay in Python, as `CpuWeight`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from intaglio.ops import AdapterProjection, Array, Format, LoraPair, LoraSegment
from intaglio.ops._cpu import AdapterWeights, LoraPlan, Pages
from intaglio.ops.cpu.weight import CpuWeight

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ReplacedRows:
    """The rows that replace rows of a table: ids [n], ascending, and the new rows as a matrix [n, hidden]."""

    ids: npt.NDArray[np.int32]
    matrix: CpuWeight

    def look_up(self, tokens: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.bool_], F32]:
        """Whether each token has a new row [tokens], and these rows, in the order of the tokens."""
        found = np.minimum(np.searchsorted(self.ids, tokens), len(self.ids) - 1)
        is_replaced = self.ids[found] == tokens
        rows: F32 = self.matrix.arrays["values"][found[is_replaced]]
        return is_replaced, rows


@dataclass(frozen=True, slots=True)
class CpuAdapter:
    """An adapter in the kernels' layout. tables, rows: replacements, by the index of the table's projection."""

    lora: AdapterWeights
    tables: Mapping[int, CpuWeight]
    rows: Mapping[int, ReplacedRows]


class CpuPlan(LoraPlan):
    """The adapters of a step. replacing: the segments whose adapters also replace tables or rows, in Python."""

    def __init__(self, segments: Sequence[LoraSegment]) -> None:
        super().__init__([(start, stop, adapter.lora, scale) for start, stop, adapter, scale in segments])
        self.replacing = [segment for segment in segments if segment.weights.tables or segment.weights.rows]


def pack_adapter(
    projections: Sequence[AdapterProjection],
    spare: Pages | None,
    gain_of: Callable[[CpuWeight, LoraPair], F32],
) -> CpuAdapter:
    """Copy an adapter into the kernels' layout.

    spare    memory to use if it is large enough
    gain_of  returns the DoRA gain for a matrix of the base and a pair with a magnitude
    """
    arrays = [
        (
            [_pair_arrays(*both, gain_of) for both in zip(projection.weights, projection.pairs, strict=True)],
            [None if norm is None else np.ascontiguousarray(norm, np.float32) for norm in projection.norms],
        )
        for projection in projections
    ]
    tables = {index: projection.table for index, projection in enumerate(projections) if projection.table is not None}
    rows = {
        index: ReplacedRows(
            np.asarray(projection.rows.ids, np.int32),
            CpuWeight(
                "f32", projection.rows.rows.shape, {"values": np.ascontiguousarray(projection.rows.rows, np.float32)}
            ),
        )
        for index, projection in enumerate(projections)
        if projection.rows is not None
    }
    return CpuAdapter(AdapterWeights(arrays, spare), tables, rows)


def _pair_arrays(
    weight: CpuWeight, pair: LoraPair | None, gain_of: Callable[[CpuWeight, LoraPair], F32]
) -> tuple[Any, ...] | None:
    if pair is None:
        return None
    scales = np.ascontiguousarray(np.broadcast_to(pair.scale, pair.a.shape[:1]), np.float32)
    bias = None if pair.bias is None else np.ascontiguousarray(pair.bias, np.float32)
    gain = None if pair.magnitude is None else gain_of(weight, pair)
    return (np.ascontiguousarray(pair.a), np.ascontiguousarray(pair.b.T), scales, bias, gain)


def adapter_arrays(adapter: CpuAdapter) -> dict[str, Array]:
    """The arrays that `adapter_from_arrays` needs; views of the adapter's memory."""
    shapes = np.frombuffer(msgspec.json.encode(adapter.lora.shapes), np.uint8)
    arrays: dict[str, Array] = {
        "shapes": shapes, "values": adapter.lora.values, "vectors": adapter.lora.vectors
    }  # fmt: skip
    for index, table in adapter.tables.items():
        arrays[f"table {index} {table.fmt}"] = table.arrays["values"]
    for index, rows in adapter.rows.items():
        arrays[f"ids {index}"], arrays[f"rows {index}"] = rows.ids, rows.matrix.arrays["values"]
    return arrays


def adapter_from_arrays(
    arrays: Mapping[str, Array], projections: Sequence[Sequence[CpuWeight]], spare: Pages | None
) -> CpuAdapter:
    """The adapter; arrays are used in place, except those that fit into the spare memory. Raises ValueError unless they
    fit the base's matrices, projection by projection.
    """
    shapes = msgspec.json.decode(bytes(arrays["shapes"]))
    if [len(parts) for parts, _ in shapes] != [len(weights) for weights in projections]:
        raise ValueError("an adapter of another model")
    lora = AdapterWeights.attach(shapes, arrays["values"], arrays["vectors"], spare)
    tables, rows = {}, {}
    for name, array in arrays.items():
        kind, *rest = name.split()
        if kind == "table":
            fmt: Format = "f32" if rest[1] == "f32" else "bf16"
            tables[int(rest[0])] = CpuWeight(fmt, array.shape, {"values": array})
        elif kind == "ids":
            matrix = CpuWeight("f32", arrays[f"rows {rest[0]}"].shape, {"values": arrays[f"rows {rest[0]}"]})
            rows[int(rest[0])] = ReplacedRows(array, matrix)
    return CpuAdapter(lora, tables, rows)
