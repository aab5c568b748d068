"""Packs a checkpoint: tensor by tensor, in pieces of rows, so that memory does not grow with the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import ModelFormatError, PackingError
from intaglio.model.loader import read_config
from intaglio.model.packing.blocks import encoded
from intaglio.model.packing.partial_file import PartialFile
from intaglio.model.packing.plan import Item, PackPlan, make_plan
from intaglio.model.quantize import quantized_pieces
from intaglio.model.weights import Checkpoint, open_checkpoint
from intaglio.model.weights.mapped_file import release_pages
from intaglio.model.weights.packed_model import is_packed_model, read_description
from intaglio.ops import QuantizedFormat

Progress = Callable[[int, int], None]  # bytes of the source that are done, and in all


Importance = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """importance: [inputs] by tensor name, the weight of an error in each input. digest: of the text."""

    importance: Importance
    digest: str


@dataclass(frozen=True, slots=True)
class Packed:
    """The outcome. was_there: the file had been complete, and nothing was written. num_resumed: tensors kept from an
    interrupted run.
    """

    path: Path
    num_bytes: int
    num_tensors: int
    was_there: bool = False
    num_resumed: int = 0


def pack(
    source: Path,
    target: Path,
    fmt: QuantizedFormat,
    *,
    calibration: Calibration | None = None,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> Packed:
    """Write `target` from a checkpoint. A run that was killed is continued by the next one with the same arguments.

    calibration  weights of errors, from activations; None: all errors have the same weight
    force        replace an existing `target`
    Raises PackingError, StorageFullError, or ModelFormatError for a source that cannot be read.
    """
    if not source.exists():
        raise ModelFormatError(f"{source} does not exist")
    if not target.absolute().parent.is_dir():
        raise PackingError(f"{target} cannot be written: there is no folder {target.absolute().parent}")
    with open_checkpoint(source) as checkpoint:
        if checkpoint.packed is not None:
            raise PackingError(f"{source} is already packed in {checkpoint.packed.fmt}; give the source of that file")
        read_config(checkpoint)  # every tensor is there, with its shape
        plan = make_plan(checkpoint, fmt, calibration.digest if calibration else None)
        if not force and _is_there(target, plan):
            return Packed(target, plan.num_bytes, len(plan.items), was_there=True)
        with PartialFile(target, plan) as file:
            num_resumed = file.num_done
            _write_items(checkpoint, plan, file, calibration.importance if calibration else {}, progress)
            file.finish()
    return Packed(target, plan.num_bytes, len(plan.items), num_resumed=num_resumed)


def verify(path: Path, progress: Progress = lambda done, total: None) -> int:
    """Compare every tensor of a packed file with its digest. Returns their number; raises ModelFormatError naming the
    first that is damaged, PackingError if the file is not a packed one.
    """
    if not is_packed_model(path):
        raise PackingError(f"{path} is not a file of `intaglio pack`")
    with open_checkpoint(path) as checkpoint:
        views = [checkpoint.raw(name).data for name in checkpoint.names()]
        total, done = sum(view.nbytes for view in views), 0
        for name, view in zip(checkpoint.names(), views, strict=True):
            checkpoint.checked_raw(name)
            release_pages(view)
            done += view.nbytes
            progress(done, total)
        return len(views)


def _is_there(target: Path, plan: PackPlan) -> bool:
    """Whether the target already is the file of this plan. Raises PackingError if it is another file."""
    if not target.exists():
        return False
    if is_packed_model(target) and read_description(target).key == plan.key:
        return True
    kind = "was packed from another source or with other options" if is_packed_model(target) else "is not a packed file"
    raise PackingError(f"{target} exists and {kind}; --force replaces it")


def _write_items(
    checkpoint: Checkpoint, plan: PackPlan, file: PartialFile, importance: Importance, progress: Progress
) -> None:
    total = sum(item.source_bytes for item in plan.items)
    done = sum(item.source_bytes for item in plan.items[: file.num_done])
    progress(done, total)
    for item in plan.items[file.num_done :]:
        for written in file.write(item, _chunks(checkpoint, plan, item, importance)):
            progress(done + item.source_bytes * written // max(item.num_bytes, 1), total)
        done += item.source_bytes


def _chunks(checkpoint: Checkpoint, plan: PackPlan, item: Item, importance: Importance) -> Iterator[NDArray[np.uint8]]:
    if item.name in plan.files:
        yield np.frombuffer(plan.files[item.name], np.uint8)
    elif item.fmt is None:
        yield checkpoint.tensor(item.name).view(np.uint8)
    else:
        raw, num_rows = checkpoint.raw(item.name), 0
        for matrix in quantized_pieces(raw, item.fmt, importance.get(item.name)):
            yield encoded(matrix, item.dtype)
            num_rows += matrix.shape[0]
            release_pages(raw.data[: raw.data.nbytes * num_rows // raw.shape[0]])
