"""Packed adapters: what the check of a PEFT adapter gave, in the form in which the engine holds it, on disk.

Reading an adapter's own files means parsing, checking, converting and hashing some hundred tensors. All of it was done
when the adapter was first read, so its result is kept, and loading is a read and a copy: one file per (digest, type).

    float32   for a base that is not quantized: exactly the values of the digest
    float16   for a quantized base, where a step reads the matrices of every adapter in it: half the bytes
    int8      the same, with a quarter of the bytes

The digest covers the float32 values; a file is found by it, so a changed adapter is another file and none is ever out
of date. Files lie among the things that can be made again. One that nobody has read for a month is removed, so an
adapter that was deleted leaves nothing behind for ever.
"""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from intaglio.lora.adapter import LoraAdapter
from intaglio.model.array_file import ASIDE_PREFIX, read_arrays, write_arrays
from intaglio.ops import LoraPair

logger = logging.getLogger(__name__)

AdapterDtype = Literal["float32", "float16", "int8"]

VERSION = 2  # raise it whenever `pack_adapter` or the arrays of a file change

_SUFFIX = ".adapter"
_SCALES = "scales"
_DAY_S = 24 * 3600.0
_KEPT_UNREAD_S = 30 * _DAY_S


def pack_adapter(adapter: LoraAdapter, dtype: AdapterDtype) -> LoraAdapter:
    """The adapter as the engine takes it: a and b of the type, a and bᵀ C-contiguous, as `Ops.lora_weights` reads them.

    int8 has a scale for each row of a and one for each column of b, both of which belong to one rank: their product is
    the rank's scale. A value is then off by 1/254 of the largest of its row or column at most.

    float16 keeps eleven bits of each value. First a and b are multiplied by powers of two that bring their largest
    magnitude into [0.5, 1), so that the small numbers of a young adapter do not fall below what float16 can hold; the
    pair's scale takes the powers back. A delta then differs from the float32 one by 2^-10 of Σ |b| |a| at most, beside
    2^-24 of the largest values for numbers that are thousands of times smaller than those.
    """
    pairs = {key: _packed_pair(pair, dtype) for key, pair in adapter.pairs.items()}
    return LoraAdapter(adapter.digest, adapter.rank, pairs)


def _packed_pair(pair: LoraPair, dtype: AdapterDtype) -> LoraPair:
    if dtype == "float32":
        return LoraPair(np.ascontiguousarray(pair.a), np.ascontiguousarray(pair.b.T).T, pair.scale)
    scale = np.asarray(pair.scale, np.float32)
    if dtype == "float16":
        a, a_exponent = _halves(pair.a)
        bt, b_exponent = _halves(pair.b.T)
        return LoraPair(a, bt.T, np.ldexp(scale, a_exponent + b_exponent))
    a_bytes, a_scales = _bytes(pair.a)
    bt_bytes, b_scales = _bytes(pair.b.T)
    return LoraPair(a_bytes, bt_bytes.T, scale * a_scales * b_scales)


def _bytes(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """([rank, n] as int8, [rank] float32 scales); a row of zeros has the scale 0."""
    scales = np.abs(values).max(axis=1) / np.float32(127)
    with np.errstate(over="ignore", invalid="ignore"):  # rows so small that their inverse is no number become zeros
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
        scaled = np.nan_to_num(values * inverse[:, None], posinf=0, neginf=0)
    return np.ascontiguousarray(np.rint(scaled), np.int8), scales


def _halves(values: NDArray[np.float32]) -> tuple[NDArray[np.float16], int]:
    """(values · 2^-exponent as C-contiguous float16, exponent), the largest magnitude in [0.5, 1) before rounding."""
    exponent = math.frexp(float(np.abs(values).max()))[1]
    return np.ascontiguousarray(np.ldexp(values, -exponent), np.float16), exponent


class PackedAdapters:
    """The packed adapters of one folder, in one type. Threads and processes may share the folder."""

    def __init__(self, folder: Path, dtype: AdapterDtype) -> None:
        self._folder = folder
        self._dtype: AdapterDtype = dtype

    def read(self, digest: str) -> LoraAdapter | None:
        """The packed adapter; None if it is not there or not exactly as it was written."""
        path = self._path(digest)
        arrays = read_arrays(path, VERSION, self._key(digest))
        if arrays is None:
            return None
        _note_use(path)
        return _from_arrays(digest, arrays)

    def keep(self, adapter: LoraAdapter) -> LoraAdapter:
        """The packed form of a checked adapter; it is written unless a good file is there already.

        A folder that cannot be written to costs slower loading, and a line in the log.
        """
        kept = self.read(adapter.digest)
        if kept is not None:
            return kept
        packed = pack_adapter(adapter, self._dtype)
        path = self._path(adapter.digest)
        try:
            write_arrays(path, VERSION, self._key(adapter.digest), _to_arrays(packed))
        except OSError as error:
            logger.warning("packed adapter could not be kept in %s (%s); it is read from its own files", path, error)
        return packed

    def sweep(self) -> int:
        """Remove what was not read for a month, and files that were never finished. Returns how many."""
        removed = 0
        for path in [*self._folder.glob(f"*{_SUFFIX}"), *self._folder.glob(f"{ASIDE_PREFIX}*")]:
            kept_s = _DAY_S if path.name.startswith(ASIDE_PREFIX) else _KEPT_UNREAD_S
            try:
                if time.time() - path.stat().st_mtime > kept_s:
                    path.unlink()
                    removed += 1
            except OSError as error:  # another process was faster, or the folder is not ours to change
                logger.info("unused packed adapter %s stays: %s", path, error)
        return removed

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest[:32]}.{self._dtype}{_SUFFIX}"

    def _key(self, digest: str) -> str:
        return f"{digest} {self._dtype}"


def _to_arrays(adapter: LoraAdapter) -> dict[str, NDArray[Any]]:
    """By "LAYER PROJECTION" a, by "LAYER PROJECTION T" bᵀ, and the scales of all ranks in the same order."""
    arrays: dict[str, NDArray[Any]] = {}
    for (layer, projection), pair in adapter.pairs.items():
        arrays[f"{layer} {projection}"] = pair.a
        arrays[f"{layer} {projection} T"] = pair.b.T
    scales = [np.broadcast_to(np.asarray(pair.scale, np.float32), pair.a.shape[:1]) for pair in adapter.pairs.values()]
    arrays[_SCALES] = np.concatenate(scales)
    return arrays


def _from_arrays(digest: str, arrays: dict[str, NDArray[Any]]) -> LoraAdapter:
    scales, used = arrays.pop(_SCALES), 0
    pairs = {}
    for name in [name for name in arrays if not name.endswith(" T")]:
        layer, projection = name.split(" ")
        rank = arrays[name].shape[0]
        pairs[int(layer), projection] = LoraPair(arrays[name], arrays[f"{name} T"].T, scales[used : used + rank])
        used += rank
    return LoraAdapter(digest, max(pair.a.shape[0] for pair in pairs.values()), pairs)


def _note_use(path: Path) -> None:
    """Let `sweep` know, at most once a day."""
    try:
        if time.time() - path.stat().st_mtime > _DAY_S:
            os.utime(path)
    except OSError as error:
        logger.debug("%s: time of use not noted: %s", path, error)
