"""Read a PEFT adapter: all of it, or not at all.

The tensors are the truth and the config has to agree with them: every tensor belongs to a projection of this base and
has its other half, its rank is the one that the config gives that module, the config's targets cover it, its shape fits
and its values are finite. Then `scaling · B` is computed once, in float32, and the engine knows nothing of alpha.

A target without tensors is normal (layers_to_transform, or a name that does not occur in a Gemma). Names, shapes and
ranks are checked from the header before a tensor is read, so that a file that does not fit costs no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.module_rules import ModuleRules
from intaglio.lora.peft_config import CONFIG_FILE, PeftConfig, read_peft_config
from intaglio.lora.safetensors_file import SafetensorsFile
from intaglio.lora.tensor_names import ModuleKey, PairNames, pair_tensors
from intaglio.model.config import ModelConfig
from intaglio.ops import LoraPair

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "AdapterLimits",
    "ReadStep",
    "check_config_file",
    "check_weights_file",
    "read_peft_adapter",
]

WEIGHTS_FILE = "adapter_model.safetensors"

# "gemma" is what Workers AI has people write for the whole family, so it fits every base.
_FAMILY_OF = {"gemma2": "gemma2", "gemma3": "gemma3", "gemma3_text": "gemma3"}


class ReadStep(StrEnum):
    """What reading an adapter is at, in the order in which it gets there; told to whoever wants to know."""

    CONFIG = "config"  # keys and values of adapter_config.json, its expressions, the family
    HEADER = "header"  # layout of the safetensors file
    NAMES = "names"  # tensor names, their pairs, ranks
    SHAPES = "shapes"  # the pairs against the base, and against the config
    VALUES = "values"  # every value read and finite, the scaling folded in
    DIGEST = "digest"  # the hash over all of it


Note = Callable[[ReadStep], None]


def _to_nobody(_step: ReadStep) -> None:
    """The `note` of those who do not ask."""


@dataclass(frozen=True, slots=True)
class AdapterLimits:
    """How large an adapter may be: the rank of its largest module, and the bytes of its two files."""

    max_rank: int = 64
    max_file_bytes: int = 300_000_000
    max_config_bytes: int = 1 << 20


def read_peft_adapter(folder: Path, config: ModelConfig, limits: AdapterLimits, note: Note = _to_nobody) -> LoraAdapter:
    """Read `adapter_config.json` and `adapter_model.safetensors` of a folder for one base model.

    note is called with each step as it begins. Raises AdapterError naming the file, key or tensor, what is wrong and
    where it can be mended.
    """
    if not folder.is_dir():
        raise AdapterError(f"adapter folder {folder.name} is not there, or not any more")
    note(ReadStep.CONFIG)
    peft, rules = _read_config(folder / CONFIG_FILE, limits)
    _check_family(peft, config)
    note(ReadStep.HEADER)
    with SafetensorsFile(folder / WEIGHTS_FILE, limits.max_file_bytes) as file:
        note(ReadStep.NAMES)
        modules = _checked_pairs(file, limits)
        note(ReadStep.SHAPES)
        for key, names in modules.items():
            _check_base(file, key, names, config)
            _check_config(file, key, names, rules)
        note(ReadStep.VALUES)
        pairs = {key: _read_pair(file, names, rules) for key, names in modules.items()}
    note(ReadStep.DIGEST)
    return LoraAdapter.from_pairs(pairs)


def check_config_file(path: Path, limits: AdapterLimits, note: Note = _to_nobody) -> PeftConfig:
    """Check an `adapter_config.json` alone, as when the weights have not come yet. Raises AdapterError."""
    note(ReadStep.CONFIG)
    return _read_config(path, limits)[0]


def check_weights_file(path: Path, limits: AdapterLimits, note: Note = _to_nobody) -> None:
    """Check an `adapter_model.safetensors` alone, without config or base: layout, names, pairs, ranks, finite values.

    Takes a few MB of memory, however large the file. Raises AdapterError.
    """
    note(ReadStep.HEADER)
    with SafetensorsFile(path, limits.max_file_bytes) as file:
        note(ReadStep.NAMES)
        _checked_pairs(file, limits)
        note(ReadStep.VALUES)
        for name in file.entries:
            file.check_values(name)


def _read_config(path: Path, limits: AdapterLimits) -> tuple[PeftConfig, ModuleRules]:
    """The config and its compiled expressions; compiling them is their check."""
    config = read_peft_config(path, limits.max_config_bytes)
    if config.r > limits.max_rank:
        raise AdapterError(f"{CONFIG_FILE}: r is {config.r}; this server takes ranks up to {limits.max_rank}")
    return config, ModuleRules(config)


def _check_family(peft: PeftConfig, config: ModelConfig) -> None:
    family = _FAMILY_OF.get(peft.model_type or "", config.family)
    if family != config.family:
        raise AdapterError(
            f"{CONFIG_FILE}: model_type is {peft.model_type!r}; the base model here is a {config.family}"
        )


def _checked_pairs(file: SafetensorsFile, limits: AdapterLimits) -> dict[ModuleKey, PairNames]:
    """The pairs of the file, each with one rank on both sides that is within the limit."""
    modules = pair_tensors(file.entries, WEIGHTS_FILE)
    for names in modules.values():
        a, b = file.entries[names.a].shape, file.entries[names.b].shape
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or 0 in (*a, *b):
            raise AdapterError(
                f"{WEIGHTS_FILE}: tensor {names.a!r} has shape {list(a)} and {names.b!r} {list(b)}; "
                "[rank, in] and [out, rank] with one rank, at least 1, are needed"
            )
        if a[0] > limits.max_rank:
            raise AdapterError(
                f"{WEIGHTS_FILE}: tensor {names.a!r} has rank {a[0]}; this server takes ranks up to {limits.max_rank}"
            )
    return modules


def _check_base(file: SafetensorsFile, key: ModuleKey, names: PairNames, config: ModelConfig) -> None:
    """The pair fits the base: its layer exists and its outer sizes are the projection's."""
    layer, projection = key
    if layer >= config.num_layers:
        raise AdapterError(
            f"{WEIGHTS_FILE}: tensor {names.a!r} is for layer {layer}; "
            f"the base model has layers 0 to {config.num_layers - 1}"
        )
    out_features, in_features = config.projection_shapes()[projection]
    for name, axis, needed in ((names.a, 1, in_features), (names.b, 0, out_features)):
        shape = file.entries[name].shape
        if shape[axis] != needed:
            form = f"[rank, {needed}]" if axis else f"[{needed}, rank]"
            raise AdapterError(
                f"{WEIGHTS_FILE}: tensor {name!r} has shape {list(shape)}; the base model needs {form}. "
                "The adapter was trained on another model"
            )


def _check_config(file: SafetensorsFile, key: ModuleKey, names: PairNames, rules: ModuleRules) -> None:
    """The config agrees: it adapts this module, with this rank."""
    if not rules.covers(names.path, key[0]):
        raise AdapterError(
            f"{WEIGHTS_FILE}: tensor {names.a!r} is there, but {CONFIG_FILE} does not adapt {names.path} "
            "(target_modules, exclude_modules, layers_to_transform); the two files are not of one training"
        )
    rank, resolved = file.entries[names.a].shape[0], rules.rank(names.path)
    if rank != resolved:
        raise AdapterError(
            f"{WEIGHTS_FILE}: tensor {names.a!r} has rank {rank}; {CONFIG_FILE} gives {names.path} rank {resolved} "
            "(r, rank_pattern)"
        )


def _read_pair(file: SafetensorsFile, names: PairNames, rules: ModuleRules) -> LoraPair:
    a, b = file.read(names.a), file.read(names.b)
    scaling = rules.scaling(names.path, a.shape[0])
    with np.errstate(over="ignore"):  # checked in the next line, with the tensor's name
        b *= np.float32(scaling)
    if not np.isfinite(b).all():
        raise AdapterError(
            f"{CONFIG_FILE}: the scaling of {names.path} is {scaling:g} (lora_alpha, alpha_pattern over rank), "
            f"which takes {names.b!r} beyond float32"
        )
    return LoraPair(a, b)
