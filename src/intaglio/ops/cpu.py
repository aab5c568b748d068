"""The fast body of `Ops`: C++ kernels on a pool of threads, NumPy holding the arrays.

What a row gets does not depend on the other rows, on how a prompt is cut, or on the number of threads: see
csrc/kernels.cpp. Weights may be quantized (w8, w5, w4); then the row they meet becomes int8 with one scale per 32
inputs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from intaglio.errors import SettingsError
from intaglio.ops import (
    GROUP,
    Array,
    AttentionRow,
    Format,
    KVGroup,
    LoraPair,
    LoraSegment,
    QKNorms,
    QuantizedFormat,
    QuantizedMatrix,
    RopeKind,
    SamplingRow,
)
from intaglio.ops._cpu import AttentionPlan, Device, LoraPlan, LoraWeights, PackedMatrix, instruction_sets, pack
from intaglio.ops.sampling import penalized, uniform

F32 = npt.NDArray[np.float32]

_TILE = 16  # outputs that the kernels compute together
_CODES = {"f32": 0, "bf16": 1, "w8": 2, "w4": 3, "w5": 4}
_LINE = 64  # bytes of a cache line
_MAX_THREADS = 256
_ANGLE_PAGE = 1024  # positions by which the table of angles grows


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuWeight:
    """A packed matrix: its shape [out, in], its format, and the arrays in the kernels' layout."""

    def __init__(
        self, fmt: Format | QuantizedFormat, shape: tuple[int, int], arrays: dict[str, npt.NDArray[Any]]
    ) -> None:
        self.fmt = fmt
        self.shape = shape
        self.arrays = arrays
        values = arrays["values"].reshape(-1).view(np.uint8)
        self.packed: PackedMatrix = pack(
            _CODES[fmt], shape[0], shape[1], values, arrays.get("scales"), arrays.get("minima")
        )


class CpuOps:
    """The C++ body of `Ops`; the docstrings there are its specification.

    threads          None takes every core this process may use
    instruction_set  None takes the best this machine has; see `instruction_sets()`
    """

    def __init__(self, threads: int | None = None, instruction_set: str | None = None) -> None:
        threads = usable_cores() if threads is None else threads
        if not 1 <= threads <= _MAX_THREADS:
            raise SettingsError(f"threads is {threads}, outside 1 to {_MAX_THREADS}")
        available = instruction_sets()
        if instruction_set is not None and instruction_set not in available:
            raise SettingsError(f"instruction set {instruction_set!r}: this machine has {', '.join(available)}")
        self._device = Device(threads, instruction_set)
        self._angles: dict[int, tuple[RopeKind, int, F32]] = {}
        self._positions: Array = None  # of the step at hand, and the highest of them
        self._highest = 0

    @property
    def layout(self) -> str:
        return "tiles of 16"  # the same for every instruction set

    @property
    def instruction_set(self) -> str:
        return self._device.isa

    @property
    def threads(self) -> int:
        return self._device.threads

    # -- bringing data in ----------------------------------------------------------------------------------------------

    def integers(self, values: Sequence[int]) -> Array:
        return np.asarray(values, dtype=np.int32)

    def vector(self, values: Array, add: float = 0.0) -> Array:
        return np.asarray(values, dtype=np.float32) + np.float32(add)

    def weight(self, matrix: Array, fmt: Format) -> CpuWeight:
        dtype: npt.DTypeLike = np.float32 if fmt == "f32" else ml_dtypes.bfloat16
        return CpuWeight(fmt, matrix.shape, {"values": np.ascontiguousarray(matrix, dtype=dtype)})

    def quantized_weight(self, matrix: QuantizedMatrix) -> CpuWeight:
        arrays: dict[str, npt.NDArray[Any]] = {"values": _tiled_values(matrix), "scales": _tiled_numbers(matrix.scales)}
        if matrix.minima is not None:
            arrays["minima"] = _tiled_numbers(matrix.minima)
        return CpuWeight(matrix.fmt, matrix.shape, arrays)

    def packed_arrays(self, weight: CpuWeight) -> dict[str, Array]:
        return weight.arrays

    def packed_weight(self, fmt: QuantizedFormat, shape: tuple[int, int], arrays: dict[str, Array]) -> CpuWeight:
        return CpuWeight(fmt, shape, arrays)

    def lora_weights(self, calls: Sequence[Sequence[LoraPair | None]]) -> LoraWeights:
        return LoraWeights([[None if pair is None else _lora_arrays(pair) for pair in pairs] for pairs in calls])

    def lora_plan(self, segments: Sequence[LoraSegment]) -> LoraPlan:
        return LoraPlan([(segment.start, segment.stop, segment.weights) for segment in segments])

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> AttentionPlan:
        items = [(row.start, row.stop, row.context, row.first_key, list(row.block_table)) for row in rows]
        return AttentionPlan(items, block_size)

    def new_kv(self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int) -> KVGroup:
        shape = (layers, num_blocks, block_size, kv_heads, head_dim)
        return KVGroup(_aligned_zeros(shape), _aligned_zeros(shape))

    # -- the forward

    def embedding(self, table: CpuWeight, ids: Array, scale: float) -> Array:
        out = np.empty((len(ids), table.shape[1]), np.float32)
        self._device.embed(table.packed, ids, scale, out)
        return out

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        out = np.empty_like(x)
        self._device.rms_norm(x, weight, None, eps, out)
        return out

    def linears(
        self, x: Array, weights: Sequence[CpuWeight], plan: LoraPlan | None = None, call: int = 0
    ) -> tuple[Array, ...]:
        outputs = tuple(np.empty((x.shape[0], weight.shape[0]), np.float32) for weight in weights)
        self._device.linears(x, [weight.packed for weight in weights], plan, call, outputs)
        return outputs

    def rope_and_cache(
        self,
        q: Array,
        k: Array,
        v: Array,
        positions: Array,
        kind: RopeKind,
        norms: QKNorms | None,
        cache: KVGroup,
        layer: int,
        slots: Array,
    ) -> Array:
        q_norm, k_norm, eps = (None, None, 0.0) if norms is None else (norms.q, norms.k, norms.eps)
        if positions is not self._positions:  # the same array in every layer of a step
            self._positions, self._highest = positions, int(positions.max(initial=0))
        angles = self._angles_up_to(kind, self._highest, q.shape[-1])
        self._device.rope_and_cache(
            q, k, v, q_norm, k_norm, eps, angles, positions, cache.keys[layer], cache.values[layer], slots
        )
        return q

    def attention(
        self,
        q: Array,
        cache: KVGroup,
        layer: int,
        plan: AttentionPlan,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Array:
        out = np.empty_like(q)
        self._device.attention(q, cache.keys[layer], cache.values[layer], plan, scale, window or 0, softcap or 0.0, out)
        return out

    def gelu_gate(self, gate: Array, up: Array) -> Array:
        out = np.empty_like(gate)
        self._device.gelu_gate(gate, up, out)
        return out

    def add_norm(self, x: Array, y: Array, weight: Array | None, eps: float) -> Array:
        out = np.empty_like(x)
        if weight is None:
            self._device.add(x, y, out)
        else:
            self._device.rms_norm(y, weight, x, eps, out)
        return out

    def take_rows(self, x: Array, rows: Array) -> Array:
        return x[rows]

    def logits(self, x: Array, table: CpuWeight, softcap: float | None) -> Array:
        (out,) = self.linears(x, [table])
        if softcap is not None:
            self._device.softcap(out, softcap)
        return out

    # -- choosing tokens

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        for index, row in enumerate(rows):
            changed = penalized(logits[index, :vocab_size], row)
            if changed.base is not logits:  # a copy was made: some token had a penalty
                logits[index, :vocab_size] = changed
        return list(self._device.sample(logits, vocab_size, [_choice(row) for row in rows]))

    def _angles_up_to(self, kind: RopeKind, position: int, dim: int) -> F32:
        """[positions, dim] cosines and sines of each position; grows by pages as contexts grow."""
        # Looked up by identity, once per layer: hashing the kind would cost more than the rotation of one token.
        known, width, table = self._angles.get(id(kind), (kind, dim, np.empty((0, dim), np.float32)))
        if known is not kind or width != dim or position >= table.shape[0]:
            if known is not kind or width != dim:
                table = np.empty((0, dim), np.float32)
            first_page, end_page = table.shape[0] // _ANGLE_PAGE, position // _ANGLE_PAGE + 1
            # Page by page: what a position gets must not depend on how long the table is.
            pages = [_angle_page(kind, page, dim // 2) for page in range(first_page, end_page)]
            table = np.concatenate([table, *pages])
            self._angles[id(kind)] = (kind, dim, table)  # holds the kind, so that its identity stays its own
        return table


def _lora_arrays(pair: LoraPair) -> tuple[Array, Array, float]:
    return (np.ascontiguousarray(pair.a), np.ascontiguousarray(pair.b.T), pair.scale)


def _aligned_zeros(shape: tuple[int, ...]) -> F32:
    """Zeros from the start of a cache line on, so that no load meets two. Their memory comes when it is touched."""
    count = math.prod(shape)
    memory = np.zeros(count + _LINE // 4, np.float32)
    start = -memory.ctypes.data % _LINE // 4
    return memory[start : start + count].reshape(shape)


def _angle_page(kind: RopeKind, page: int, half: int) -> F32:
    positions = np.arange(page * _ANGLE_PAGE, (page + 1) * _ANGLE_PAGE, dtype=np.float64)
    inverse_frequency = np.power(kind.theta, -np.arange(half, dtype=np.float64) / half) / kind.factor
    angles = positions[:, None] * inverse_frequency
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _choice(row: SamplingRow) -> tuple[float, int, float, float]:
    """What the sampling kernel takes: temperature, top_k (0 off), top_p (1 off), the random number."""
    temperature = float(np.float32(row.temperature))  # what rounds to 0 is greedy
    top_p = 1.0 if row.top_p is None or row.top_p >= 1 else row.top_p
    return (temperature, row.top_k or 0, top_p, uniform(row.seed, row.position))


# -- packing: see Matrix in csrc/kernels.h


def _tiled_values(matrix: QuantizedMatrix) -> npt.NDArray[np.uint8]:
    """[tiles, groups, bytes]: of w8 8 quads x 16 outputs x 4 inputs; two quads share a byte in w4 and w5."""
    out, inputs = matrix.shape
    tiles, groups = -(-out // _TILE), -(-inputs // GROUP)
    shift = 128 if matrix.fmt == "w8" else 0
    padded: npt.NDArray[np.uint8] = np.full((tiles * _TILE, groups * GROUP), shift, np.uint8)
    # int8 + 128 as uint8 is the byte with its sign bit flipped
    padded[:out, :inputs] = matrix.values.view(np.uint8) ^ np.uint8(shift)
    quads = padded.reshape(tiles, _TILE, groups, GROUP // 4, 4).transpose(0, 2, 3, 1, 4).reshape(tiles, groups, 8, -1)
    if matrix.fmt == "w8":
        return np.ascontiguousarray(quads)
    low_bits = quads & np.uint8(15)
    halves = (low_bits[:, :, :4] | low_bits[:, :, 4:] << np.uint8(4)).reshape(tiles, groups, -1)
    if matrix.fmt == "w4":
        return np.ascontiguousarray(halves)
    fifth_bits = np.packbits(quads >> np.uint8(4), axis=-1, bitorder="little").reshape(tiles, groups, -1)
    return np.concatenate([halves, fifth_bits], axis=-1)


def _tiled_numbers(numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """[out, groups] float16 -> [tiles, groups, 16], as raw bits."""
    out, groups = numbers.shape
    tiles = -(-out // _TILE)
    padded = np.zeros((tiles * _TILE, groups), np.float16)
    padded[:out] = numbers
    return np.ascontiguousarray(padded.reshape(tiles, _TILE, groups).transpose(0, 2, 1)).view(np.uint16)
