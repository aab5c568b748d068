"""Whether this machine can run what the settings ask for: the instruction set, and memory for every model.

Checked before any model is loaded, by the process that starts the engines, because only it knows all of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from intaglio.engine.kv_cache import CacheShape
from intaglio.engine.memory.available import AvailableMemory, available_memory
from intaglio.engine.memory.plan import EngineMemory, EngineNeeds, plan_memory
from intaglio.engine.memory.table import memory_table
from intaglio.engine.memory.weight_format import FormatChoice, fitting_formats
from intaglio.errors import ModelFormatError, NotEnoughMemoryError, SettingsError
from intaglio.model.footprint import weights_footprint
from intaglio.model.loader import holds_quantized, read_config
from intaglio.model.packed import packed_key, packed_path
from intaglio.model.weights import TensorInfo, open_checkpoint
from intaglio.ops import KVFormat, Ops
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Kernels, Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory of the engines of some models, and the settings that each runs with.

    shapes, engines  in the order of the models
    """

    settings: Settings
    available: AvailableMemory
    shapes: list[CacheShape]
    engines: list[EngineMemory]

    def of_model(self, index: int) -> Settings:
        """The settings with the sizes of this model's caches."""
        return self.engines[index].settings(self.settings)

    def table(self, names: Sequence[str]) -> str:
        """For the start: what each model uses, and how long its sequences can be."""
        parts = zip(names, zip(self.shapes, self.engines, strict=True), strict=True)
        return memory_table(dict(parts), self.settings, self.available)


def plan_for_machine(paths: Sequence[Path], settings: Settings, available: AvailableMemory | None = None) -> MemoryPlan:
    """How an engine for each checkpoint can run here; see `plan_memory`.

    available  None asks the machine
    Raises SettingsError for kernels that this machine lacks, NotEnoughMemoryError with the sum, ModelFormatError for a
    checkpoint that cannot be read.
    """
    ops = _probe_kernels(settings.kernels)
    available = available or available_memory()
    formats = [FormatChoice(settings.format)]
    if settings.format == "auto":
        tensors = [_tensors(path) for path in paths]
        formats = fitting_formats(tensors, available, widened=settings.kernels == "reference")
    for choice in formats[:-1]:
        with contextlib.suppress(NotEnoughMemoryError):  # the next one has fewer bits
            return _plan_in_format(paths, settings, choice, ops, available)
    return _plan_in_format(paths, settings, formats[-1], ops, available)


def _plan_in_format(
    paths: Sequence[Path], settings: Settings, choice: FormatChoice, ops: Ops, available: AvailableMemory
) -> MemoryPlan:
    """The plan with weights in one format. Raises NotEnoughMemoryError as `plan_for_machine` does."""
    if choice.format != settings.format:
        settings = settings.model_copy(update={"format": choice.format})
    shapes, needs = zip(*(_cache_and_needs(path, settings, ops) for path in paths), strict=True)
    engines = plan_memory(needs, settings, available)
    if choice.reason:
        logger.warning("%s", choice.reason)
    return MemoryPlan(settings, available, list(shapes), engines)


def _tensors(path: Path) -> dict[str, TensorInfo]:
    if not path.exists():
        raise ModelFormatError(f"{path} does not exist")
    with open_checkpoint(path) as checkpoint:
        return {name: checkpoint.info(name) for name in checkpoint.names()}


def kv_format(settings: Settings, is_quantized: bool) -> KVFormat:
    """How keys and values are held: as the settings say, or bfloat16 beside quantized weights, whose rounding is
    larger, and float32 beside others.

    is_quantized  whether the checkpoint's matrices are quantized, whatever format the settings load them in
    """
    if settings.kv_format != "auto":
        return settings.kv_format
    return "bf16" if quantized_in_memory(settings, is_quantized) else "f32"


def quantized_in_memory(settings: Settings, is_quantized: bool) -> bool:
    """Whether matrices will be held quantized. is_quantized: whether the checkpoint's are."""
    return is_quantized if settings.format == "auto" else settings.format in ("w8", "w5", "w4")


def _probe_kernels(kernels: Kernels) -> Ops:
    """The kernels on one thread, which shows that this machine has them and how they lay out weights."""
    if kernels == "reference":
        return ReferenceOps()
    from intaglio.ops.cpu import CpuOps  # only here is the extension module needed

    try:
        return CpuOps(1, None if kernels == "auto" else kernels)
    except SettingsError as error:
        raise SettingsError(f"setting 'kernels': {error}") from error


def _cache_and_needs(path: Path, settings: Settings, ops: Ops) -> tuple[CacheShape, EngineNeeds]:
    if not path.exists():
        raise ModelFormatError(f"{path} does not exist")
    with open_checkpoint(path) as checkpoint:
        config = read_config(checkpoint)
        fmt = kv_format(settings, holds_quantized(checkpoint))
        tensors = {name: checkpoint.info(name) for name in checkpoint.names()}
        file_bytes = sum(checkpoint.raw(name).data.nbytes for name in tensors)
    packed = packed_path(settings.cache_path / "packed", packed_key(path, settings.format, ops.layout))
    footprint = weights_footprint(
        tensors, settings.format, widened=settings.kernels == "reference", is_packed=packed.exists()
    )
    shape = CacheShape(config, fmt, settings.kv_block_size, settings.max_running, settings.step_tokens)
    return shape, EngineNeeds.of(shape, footprint, file_bytes, settings)
