"""The fast backend of `Ops`: C++ kernels on a pool of threads, NumPy holding the arrays.

A row's result does not depend on the other rows, on how a prompt is split, or on the number of threads: see
csrc/kernels/kernels.cpp. Weights may be quantized (w8, w5, w4); then each input row is quantized to int8 with one scale
per 32 inputs.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import numpy.typing as npt

from intaglio.errors import SettingsError
from intaglio.ops import (
    AdapterProjection,
    Array,
    AttentionKind,
    AttentionRow,
    Format,
    KVFormat,
    KVGroup,
    LoraPair,
    LoraSegment,
    QuantizedFormat,
    QuantizedMatrix,
    RopeKind,
    SamplingRow,
)
from intaglio.ops._cpu import AttentionPlan, Device, Pages, instruction_sets
from intaglio.ops.cached_values import copy_block, kv_group
from intaglio.ops.cpu.adapter import CpuAdapter, CpuPlan, adapter_arrays, adapter_from_arrays, pack_adapter
from intaglio.ops.cpu.weight import CpuWeight, tiled
from intaglio.ops.dora import dora_gain, is_table_pair
from intaglio.ops.logprobs import HostDistributions
from intaglio.ops.sampling import adjusted, changes_logits, drops_improbable, uniform

F32 = npt.NDArray[np.float32]

_LINE = 64  # bytes of a cache line
_MAX_THREADS = 256
_MAX_SPARE_BYTES = 128 << 20  # allocating this much blocks the engine for some tens of milliseconds
_ANGLE_PAGE = 1024  # positions by which the table of angles grows


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuOps(HostDistributions):
    """The C++ backend of `Ops`; the docstrings there are its specification.

    threads          None: one per core that this process may use
    instruction_set  None: the best of this machine; see `instruction_sets()`
    """

    def __init__(self, threads: int | None = None, instruction_set: str | None = None) -> None:
        threads = usable_cores() if threads is None else threads
        if not 1 <= threads <= _MAX_THREADS:
            raise SettingsError(f"threads is {threads}, outside 1 to {_MAX_THREADS}")
        available = instruction_sets()
        if instruction_set is not None and instruction_set not in available:
            raise SettingsError(f"instruction set {instruction_set!r}: this machine has {', '.join(available)}")
        self._device = Device(threads, instruction_set)
        self._spare: Pages | None = None
        self._spare_lock = threading.Lock()
        self._adapter_size = 0  # bytes
        self._angles: dict[int, tuple[RopeKind, int, F32]] = {}

    @property
    def name(self) -> str:
        return self._device.isa

    @property
    def layout(self) -> str:
        return "tiles of 16"  # the same for every instruction set

    @property
    def instruction_set(self) -> str:
        return self._device.isa

    @property
    def threads(self) -> int:
        return self._device.threads

    # -- preparing data ------------------------------------------------------------------------------------------------

    def integers(self, values: Sequence[int]) -> Array:
        return np.asarray(values, dtype=np.int32)

    def vector(self, values: Array, add: float = 0.0) -> Array:
        return np.asarray(values, dtype=np.float32) + np.float32(add)

    def weight(self, matrix: Array, fmt: Format) -> CpuWeight:
        dtype: npt.DTypeLike = np.float32 if fmt == "f32" else ml_dtypes.bfloat16
        return CpuWeight(fmt, matrix.shape, {"values": np.ascontiguousarray(matrix, dtype=dtype)})

    def quantized_weight(self, matrix: QuantizedMatrix) -> CpuWeight:
        return tiled(matrix)

    def packed_arrays(self, weight: CpuWeight) -> dict[str, Array]:
        return weight.arrays

    def packed_weight(self, fmt: QuantizedFormat, shape: tuple[int, int], arrays: dict[str, Array]) -> CpuWeight:
        return CpuWeight(fmt, shape, arrays)

    def adapter_weights(self, projections: Sequence[AdapterProjection]) -> CpuAdapter:
        adapter = pack_adapter(projections, self._take_spare(), self._dora_gain)
        self._adapter_size = adapter.lora.size
        return adapter

    def lora_arrays(self, weights: CpuAdapter) -> dict[str, Array]:
        return adapter_arrays(weights)

    def lora_from_arrays(self, arrays: Mapping[str, Array], projections: Sequence[Sequence[CpuWeight]]) -> CpuAdapter:
        adapter = adapter_from_arrays(arrays, projections, self._take_spare())
        self._adapter_size = adapter.lora.size
        return adapter

    def _dora_gain(self, weight: CpuWeight, pair: LoraPair) -> F32:
        """The DoRA gain of a pair with a magnitude. The rows of W + scale · b · a come from a lookup in W with an
        adapter that has the two matrices.
        """
        a, b = (pair.a, pair.b) if is_table_pair(weight.shape, pair) else (pair.b.T, pair.a.T)
        adapter = pack_adapter([AdapterProjection([weight], [LoraPair(a, b, pair.scale)])], None, self._dora_gain)

        def changed(ids: npt.NDArray[np.int32]) -> F32:
            rows: F32 = self.embedding(weight, ids, 1.0, self.lora_plan([LoraSegment(0, len(ids), adapter)]))
            return rows

        return dora_gain(changed, weight.shape, pair)

    def _take_spare(self) -> Pages | None:
        with self._spare_lock:  # adapters are prepared by several threads
            spare, self._spare = self._spare, None
        return spare

    def preallocate_adapter_memory(self) -> None:
        """Allocate memory for another adapter of the last one's size: allocating takes longer than reading its file."""
        if self._spare is None and 0 < self._adapter_size <= _MAX_SPARE_BYTES:
            try:
                spare = Pages(self._adapter_size)
            except MemoryError:  # the next adapter will try again, and fail alone
                return
            with self._spare_lock:
                self._spare = spare

    def lora_plan(self, segments: Sequence[LoraSegment]) -> CpuPlan:
        return CpuPlan(segments)

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> AttentionPlan:
        return AttentionPlan(list(rows), block_size)

    def new_kv(
        self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int, fmt: KVFormat = "f32"
    ) -> KVGroup:
        return kv_group((layers, num_blocks, block_size, kv_heads, head_dim), fmt, _aligned_zeros)

    def copy_kv_block(self, cache: KVGroup, source: int, target: int) -> None:
        copy_block(cache, source, target)

    # -- the forward

    def embedding(
        self, table: CpuWeight, ids: Array, scale: float, plan: CpuPlan | None = None, projection: int = 0
    ) -> Array:
        out = np.empty((len(ids), table.shape[1]), np.float32)
        self._device.embed(table.packed, ids, scale, plan, projection, out)
        for start, stop, adapter, _ in plan.replacing if plan else ():
            if projection in adapter.tables:
                out[start:stop] = self.embedding(adapter.tables[projection], ids[start:stop], scale)
            if projection in adapter.rows:
                is_replaced, rows = adapter.rows[projection].look_up(ids[start:stop])
                out[start:stop][is_replaced] = rows * np.float32(scale)
        return out

    def rms_norm(self, x: Array, weight: Array, eps: float, plan: CpuPlan | None = None, projection: int = 0) -> Array:
        out = np.empty_like(x)
        self._device.rms_norm(x, weight, eps, plan, projection, out)
        return out

    def linears(
        self, x: Array, weights: Sequence[CpuWeight], plan: CpuPlan | None = None, projection: int = 0
    ) -> tuple[Array, ...]:
        outputs = tuple(np.empty((x.shape[0], weight.shape[0]), np.float32) for weight in weights)
        self._device.linears(x, [weight.packed for weight in weights], plan, projection, outputs)
        return outputs

    def self_attention(
        self,
        x: Array,
        qkv: Sequence[CpuWeight],
        kind: AttentionKind,
        cache: KVGroup,
        layer: int,
        plan: AttentionPlan,
        adapters: CpuPlan | None = None,
        projection: int = 0,
    ) -> Array:
        q, k, v = qkv
        q_norm, k_norm, eps = (None, None, 0.0) if kind.norms is None else (kind.norms.q, kind.norms.k, kind.norms.eps)
        angles = self._angles_up_to(kind.rope, plan.highest_position, kind.head_dim)
        out = np.empty((x.shape[0], q.shape[0]), np.float32)
        # Positional arguments: this is called once per layer and step, and keyword arguments take longer to parse.
        self._device.self_attention(
            x, q.packed, k.packed, v.packed, adapters, projection, q_norm, k_norm, eps, angles, _bits(cache.keys),
            _bits(cache.values), cache.key_scales, cache.value_scales, layer, plan, kind.scale, kind.window or 0,
            kind.softcap or 0.0, out,
        )  # fmt: skip
        return out

    def gated_linear(
        self, x: Array, gate: CpuWeight, up: CpuWeight, adapters: CpuPlan | None = None, projection: int = 0
    ) -> Array:
        out = np.empty((x.shape[0], gate.shape[0]), np.float32)
        self._device.gated_linear(x, gate.packed, up.packed, adapters, projection, out)
        return out

    def add_projection(
        self,
        x: Array,
        y: Array,
        weight: CpuWeight,
        post: Array | None,
        norm: Array,
        eps: float,
        adapters: CpuPlan | None = None,
        projection: int = 0,
    ) -> tuple[Array, Array]:
        total, normed = np.empty_like(x), np.empty_like(x)
        self._device.add_projection(x, y, weight.packed, adapters, projection, post, norm, eps, total, normed)
        return total, normed

    def take_rows(self, x: Array, rows: Array) -> Array:
        return x[rows]

    def logits(
        self, x: Array, table: CpuWeight, softcap: float | None, plan: CpuPlan | None = None, projection: int = 0
    ) -> Array:
        (out,) = self.linears(x, [table], plan, projection)
        for start, stop, adapter, _ in plan.replacing if plan else ():
            if projection in adapter.tables:
                (out[start:stop],) = self.linears(x[start:stop], [adapter.tables[projection]])
            if projection in adapter.rows:
                (products,) = self.linears(x[start:stop], [adapter.rows[projection].matrix])
                out[start:stop, adapter.rows[projection].ids] = products
        if softcap is not None:
            self._device.softcap(out, softcap)
        return out

    # -- sampling

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        for index, row in enumerate(rows):
            if changes_logits(row) or drops_improbable(row):
                logits[index, :vocab_size] = adjusted(logits[index, :vocab_size], row)
        return list(self._device.sample(logits, vocab_size, [_kernel_arguments(row) for row in rows]))

    def _angles_up_to(self, kind: RopeKind, position: int, dim: int) -> F32:
        """[positions, dim] cosines and sines of each position; grows by pages as contexts grow."""
        # Looked up by identity, once per layer: hashing the kind would cost more than the rotation of one token.
        known = self._angles.get(id(kind))
        if known is not None and known[1] == dim and position < known[2].shape[0]:
            return known[2]
        table = known[2] if known is not None and known[1] == dim else np.empty((0, dim), np.float32)
        first_page, end_page = table.shape[0] // _ANGLE_PAGE, position // _ANGLE_PAGE + 1
        # Page by page: the angles of a position must not depend on the length of the table.
        table = np.concatenate([table, *(_angle_page(kind, page, dim // 2) for page in range(first_page, end_page))])
        self._angles[id(kind)] = (kind, dim, table)  # keeps the kind alive, so that its id() is not reused
        return table


def _aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Zeros aligned to a cache line, so that no load crosses two. Memory is allocated when it is touched."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    return memory[start : start + size].view(dtype).reshape(shape)


def _bits(cached: Array) -> Array:
    """Keys or values for the kernels: bfloat16 as uint16, because the buffer protocol has no bfloat16."""
    return cached.view(np.uint16) if cached.itemsize == 2 else cached


def _angle_page(kind: RopeKind, page: int, half: int) -> F32:
    positions = np.arange(page * _ANGLE_PAGE, (page + 1) * _ANGLE_PAGE, dtype=np.float64)
    inverse_frequency = np.power(kind.theta, -np.arange(half, dtype=np.float64) / half) / kind.factor
    angles = positions[:, None] * inverse_frequency
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _kernel_arguments(row: SamplingRow) -> tuple[float, int, float, float]:
    """The sampling kernel's arguments: temperature, top_k (0 off), top_p (1 off), the random number."""
    temperature = float(np.float32(row.temperature))  # a value that rounds to 0 is greedy: no random number is drawn
    top_p = 1.0 if row.top_p is None or row.top_p >= 1 else row.top_p
    return (temperature, row.top_k or 0, top_p, uniform(row.seed, row.position) if temperature else 0.0)
