"""Whether this machine can run what the settings ask for: the instruction set, and memory for every model.

Checked before any model is loaded, by the process that starts the engines, because only it knows all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intaglio.engine.memory.available import AvailableMemory, available_memory
from intaglio.engine.memory.plan import EngineNeeds, fit_caches
from intaglio.errors import ModelFormatError, SettingsError
from intaglio.model.footprint import weights_footprint
from intaglio.model.loader import read_config
from intaglio.model.packed import packed_key, packed_path
from intaglio.model.weights import open_checkpoint
from intaglio.ops import Ops
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Kernels, Settings


def fit_to_machine(paths: Sequence[Path], settings: Settings, available: AvailableMemory | None = None) -> Settings:
    """The settings with which an engine for each checkpoint can run here; see `fit_caches` for what may change.

    available  None asks the machine
    Raises SettingsError for kernels that this machine lacks, NotEnoughMemoryError with the sum, ModelFormatError for a
    checkpoint that cannot be read.
    """
    ops = _probe_kernels(settings.kernels)
    needs = [_engine_needs(path, settings, ops) for path in paths]
    return fit_caches(needs, settings, available or available_memory())


def _probe_kernels(kernels: Kernels) -> Ops:
    """The kernels on one thread, which shows that this machine has them and how they lay out weights."""
    if kernels == "reference":
        return ReferenceOps()
    from intaglio.ops.cpu import CpuOps  # only here is the extension module needed

    try:
        return CpuOps(1, None if kernels == "auto" else kernels)
    except SettingsError as error:
        raise SettingsError(f"setting 'kernels': {error}") from error


def _engine_needs(path: Path, settings: Settings, ops: Ops) -> EngineNeeds:
    if not path.exists():
        raise ModelFormatError(f"{path} does not exist")
    with open_checkpoint(path) as checkpoint:
        config = read_config(checkpoint)
        tensors = {name: checkpoint.info(name) for name in checkpoint.names()}
        file_bytes = sum(checkpoint.raw(name).data.nbytes for name in tensors)
    packed = packed_path(settings.cache_path / "packed", packed_key(path, settings.format, ops.layout))
    footprint = weights_footprint(
        tensors, settings.format, widened=settings.kernels == "reference", is_packed=packed.exists()
    )
    return EngineNeeds.of(config, footprint, file_bytes, settings)
