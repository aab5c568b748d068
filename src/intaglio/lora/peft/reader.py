"""Reads a PEFT adapter completely, or refuses it.

The config must agree with the tensors: every tensor belongs to a module of this base, every pair is complete, its rank
is the one that the config gives the module, the config's targets cover it, its shape fits and its values are finite.
Then the scaling is folded in once, in float32, so the engine needs no alpha.

A target without tensors is normal (layers_to_transform, or a name that does not occur in a Gemma). Names, shapes,
ranks and sizes are checked from the header before a tensor is read, so that a file that does not fit costs no memory.

    tensor_names, header_checks  the meaning of the tensor names, and whether they fit base, config and limits
    replacements                 whole tables and single rows of them
    base_tables                  copies of the base's tables that PEFT saved with the adapter
    tensor_values                the values
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from intaglio.errors import AdapterError
from intaglio.files.adapter_folder import adapter_paths
from intaglio.files.json_object import read_json_object
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.formats.gguf import SUFFIX as GGUF_SUFFIX
from intaglio.lora.formats.gguf import GgufAdapter
from intaglio.lora.formats.mlx import is_mlx_config, mlx_config
from intaglio.lora.peft.base_tables import BaseTables, check_is_base
from intaglio.lora.peft.config import CONFIG_FILE, PeftConfig, peft_config
from intaglio.lora.peft.header_checks import check_config, check_ranks, check_shapes
from intaglio.lora.peft.module_rules import ModuleRules
from intaglio.lora.peft.replacements import Replacements, find_replacements, float32_bytes
from intaglio.lora.peft.safetensors_file import SafetensorsFile, TensorFile
from intaglio.lora.peft.tensor_names import WEIGHTS_FILE, AdapterNames, sort_tensors
from intaglio.lora.peft.tensor_values import read_tensors
from intaglio.model.config import ModelConfig

__all__ = [
    "CONFIG_FILE",
    "WEIGHTS_FILE",
    "AdapterLimits",
    "ReadStep",
    "check_config_file",
    "check_pair",
    "check_weights_file",
    "read_peft_adapter",
]

# Workers AI requires "gemma" for every version of the family, so it fits every base.
_FAMILY_OF = {"gemma2": "gemma2", "gemma3": "gemma3", "gemma3_text": "gemma3"}


class ReadStep(StrEnum):
    """The steps of a check of uploaded files, in their order."""

    CONFIG = "config"  # keys and values of adapter_config.json, its expressions, the family
    HEADER = "header"  # layout of the safetensors file
    NAMES = "names"  # tensor names, their modules, ranks
    SHAPES = "shapes"  # the modules against the base, and against the config
    VALUES = "values"  # every value read and finite, where the weights come without their config


OnStep = Callable[[ReadStep], None]


def _ignore_step(_step: ReadStep) -> None:
    """The default of `on_step`."""


@dataclass(frozen=True, slots=True)
class AdapterLimits:
    """How large an adapter may be.

    max_rank          of a module (setting max_adapter_rank)
    max_file_bytes    of the weights file (max_adapter_file_bytes)
    max_config_bytes  of the config file
    max_memory_bytes  of all values as float32 (adapter_cache_bytes)
    """

    max_rank: int = 256
    max_file_bytes: int = 300_000_000
    max_config_bytes: int = 1 << 20
    max_memory_bytes: int = 1 << 30


def read_peft_adapter(
    folder: Path,
    config: ModelConfig,
    limits: AdapterLimits,
    base_tables: BaseTables | None = None,
) -> LoraAdapter:
    """Read the adapter in a folder, as PEFT or MLX-LM saved it, or in a GGUF file of llama.cpp, for one base model.

    base_tables returns the base's embedding or head; it is called only if the file has such tables. If it is None, a
    file with such tables is refused. Raises AdapterError naming the file, key or tensor, what is wrong and how to
    correct it.
    """
    with _open_checked(folder, config, limits, _ignore_step) as checked:
        _check_base_tables(checked.file, checked.replaced, base_tables)
        ties_head = checked.peft.ensure_weight_tying and config.tied_head
        tensors = read_tensors(checked.file, checked.names, checked.replaced, checked.rules, ties_head=ties_head)
        notes = _notes(checked.names)
    return LoraAdapter.of(tensors, notes)


def _notes(names: AdapterNames) -> list[str]:
    if not names.vision:
        return []
    return [f"LoRA on {len(names.vision)} modules of the vision tower is not used: this server runs the text model"]


def check_pair(folder: Path, config: ModelConfig, limits: AdapterLimits, on_step: OnStep = _ignore_step) -> None:
    """Check everything but the values: the config, and the names and shapes in the header of the weights.

    It reads no tensor, so a server can refuse most bad adapters without asking its engine, which reads the values.
    on_step is called with each step as it begins. Raises AdapterError as `read_peft_adapter` does.
    """
    with _open_checked(folder, config, limits, on_step):
        pass


@dataclass(frozen=True, slots=True)
class _Checked:
    """The files of an adapter whose config and header are checked."""

    file: TensorFile
    names: AdapterNames
    replaced: Replacements
    rules: ModuleRules
    peft: PeftConfig


@contextmanager
def _open_checked(folder: Path, config: ModelConfig, limits: AdapterLimits, on_step: OnStep) -> Iterator[_Checked]:
    if folder.suffix == GGUF_SUFFIX and folder.is_file():
        with _open_gguf(folder, config, limits, on_step) as checked:
            yield checked
        return
    if not folder.is_dir():
        raise AdapterError(f"adapter folder {folder.name} does not exist, or was removed")
    files = adapter_paths(folder)
    on_step(ReadStep.CONFIG)
    peft, rules = _read_config(files[CONFIG_FILE], limits)
    _check_family(peft, config)
    on_step(ReadStep.HEADER)
    with _named(files[WEIGHTS_FILE]), SafetensorsFile(files[WEIGHTS_FILE], limits.max_file_bytes) as file:
        yield _checked(file, peft, rules, config, limits, on_step)


@contextmanager
def _open_gguf(path: Path, config: ModelConfig, limits: AdapterLimits, on_step: OnStep) -> Iterator[_Checked]:
    on_step(ReadStep.HEADER)
    with _named(path), GgufAdapter(path, limits.max_file_bytes) as file:
        file.check_family(config.family)
        try:
            yield _checked(file, file.config, ModuleRules(file.config), config, limits, on_step)
        except AdapterError as error:
            raise AdapterError(file.with_own_names(str(error))) from error


def _checked(
    file: TensorFile, peft: PeftConfig, rules: ModuleRules, config: ModelConfig, limits: AdapterLimits, on_step: OnStep
) -> _Checked:
    on_step(ReadStep.NAMES)
    names = sort_tensors(file.entries, WEIGHTS_FILE)
    check_ranks(file, names, limits.max_rank)
    on_step(ReadStep.SHAPES)
    check_shapes(file, names, peft, config)
    check_config(file, names, peft, rules, config)
    replaced = find_replacements(file, names, peft, rules, config)
    _check_memory(file, names, replaced, limits)
    return _Checked(file, names, replaced, rules, peft)


@contextmanager
def _named(weights: Path) -> Iterator[None]:
    """Messages name the weights as they are named here: MLX has another name than PEFT."""
    try:
        yield
    except AdapterError as error:
        if weights.name == WEIGHTS_FILE:
            raise
        raise AdapterError(str(error).replace(WEIGHTS_FILE, weights.name)) from error


def check_config_file(path: Path, limits: AdapterLimits, on_step: OnStep = _ignore_step) -> PeftConfig:
    """Check an `adapter_config.json` alone, before the weights are uploaded. Raises AdapterError."""
    on_step(ReadStep.CONFIG)
    return _read_config(path, limits)[0]


def check_weights_file(path: Path, limits: AdapterLimits, on_step: OnStep = _ignore_step) -> None:
    """Check an `adapter_model.safetensors` alone, without config or base: layout, names, pairs, ranks, finite values.

    Takes a few MB of memory, however large the file. Raises AdapterError.
    """
    on_step(ReadStep.HEADER)
    with SafetensorsFile(path, limits.max_file_bytes) as file:
        on_step(ReadStep.NAMES)
        check_ranks(file, sort_tensors(file.entries, WEIGHTS_FILE), limits.max_rank)
        on_step(ReadStep.VALUES)
        for name in file.entries:
            file.check_values(name)


def _read_config(path: Path, limits: AdapterLimits) -> tuple[PeftConfig, ModuleRules]:
    """The config and its expressions, which are checked by compiling them."""
    raw = read_json_object(path, limits.max_config_bytes, path.name, AdapterError)
    config = mlx_config(raw) if is_mlx_config(raw) else peft_config(raw)
    if config.r > limits.max_rank:
        raise AdapterError(
            f"{CONFIG_FILE}: r is {config.r}; this server's limit is {limits.max_rank} (max_adapter_rank)"
        )
    return config, ModuleRules(config)


def _check_family(peft: PeftConfig, config: ModelConfig) -> None:
    family = _FAMILY_OF.get(peft.model_type or "", config.family)
    if family != config.family:
        raise AdapterError(
            f"{CONFIG_FILE}: model_type is {peft.model_type!r}; the base model here is a {config.family}"
        )


def _check_memory(file: TensorFile, names: AdapterNames, replaced: Replacements, limits: AdapterLimits) -> None:
    loras = (part for pair in names.pairs.values() for part in (pair.a, pair.b, pair.bias, pair.magnitude))
    tables = float32_bytes(file, replaced.tables.values())
    total = tables + float32_bytes(
        file,
        [
            *(tensor for tensor in loras if tensor is not None),
            *(norm.tensor for norm in names.norms.values()),
            *(rows.tensor for rows in replaced.rows.values()),
        ],
    )
    if total > limits.max_memory_bytes:
        of_tables = f", {tables} of them for whole tables (modules_to_save)" if tables else ""
        raise AdapterError(
            f"{WEIGHTS_FILE}: its values take {total} bytes in memory as float32{of_tables}; the limit of "
            f"this server is {limits.max_memory_bytes} (adapter_cache_bytes)"
        )


def _check_base_tables(file: TensorFile, replaced: Replacements, base_tables: BaseTables | None) -> None:
    for name, tensor in replaced.base:
        if base_tables is None:
            raise AdapterError(
                f"{WEIGHTS_FILE}: tensor {tensor!r} is a table of the base, which cannot be compared with the base "
                "here; save the adapter again with save_embedding_layers=False"
            )
        check_is_base(file, tensor, base_tables(name), WEIGHTS_FILE)
