"""Whole tables and single rows that replace those of the base's embedding and head.

As in PEFT the two paths are separate even where the base has one table for both: a table saved for one of them
leaves the other as it is, unless `ensure_weight_tying` is on. Rows are the exception: on a base with one table, rows of
the embedding are the head's too, unless the config names other tokens for the head. A LoRA on the head applies on top.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from intaglio.errors import AdapterError
from intaglio.lora.peft.config import CONFIG_FILE, PeftConfig
from intaglio.lora.peft.module_rules import ModuleRules
from intaglio.lora.peft.safetensors_file import TensorFile
from intaglio.lora.peft.tensor_names import EMBEDDING, HEAD, WEIGHTS_FILE, AdapterNames, PairNames, SingleName
from intaglio.model.config import ModelConfig
from intaglio.ops import MODEL

_PATHS = {EMBEDDING: "model.embed_tokens", HEAD: "lm_head"}  # module paths of the two in a text-only model


@dataclass(frozen=True, slots=True)
class RowNames:
    """A tensor of rows, and the token id of each row."""

    tensor: str
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Replacements:
    """Tensors by the table that they change, "embed_tokens" or "lm_head".

    tables  tensors that are the whole table
    rows    tensors that are some rows of it
    base    tensors that must equal the base's own table, and are then skipped
    """

    tables: dict[str, str]
    rows: dict[str, RowNames]
    base: list[tuple[str, str]]


def find_replacements(
    file: TensorFile, names: AdapterNames, peft: PeftConfig, rules: ModuleRules, config: ModelConfig
) -> Replacements:
    """Compare the file's tables and rows with the config and the base. Raises AdapterError naming the tensor or key."""
    ties = peft.ensure_weight_tying and config.tied_head
    tables = _tables(file, names, rules, ties, config)
    _check_saved_modules(names, tables, peft)
    rows = _rows(file, names, peft, rules, config)
    _refuse_conflicts(names, tables, rows)
    base = [(name, saved.tensor) for name, saved in names.base.items()]
    base += [(name, saved.tensor) for name, saved in names.saved.items() if name not in tables]
    return Replacements(tables, rows, base)


def _tables(
    file: TensorFile, names: AdapterNames, rules: ModuleRules, ties: bool, config: ModelConfig
) -> dict[str, str]:
    tables = {name: saved.tensor for name, saved in names.saved.items() if rules.saves(saved.path)}
    if ties and EMBEDDING in tables:
        if HEAD not in names.saved:
            raise AdapterError(
                f"{WEIGHTS_FILE}: ensure_weight_tying is on, but only embed_tokens was saved; "
                "save the adapter again with save_pretrained"
            )
        tables[HEAD] = names.saved[HEAD].tensor
    needed = (config.vocab_size, config.hidden_size)
    for tensor in tables.values():
        shape = file.entries[tensor].shape
        if shape != needed:
            raise AdapterError(
                f"{WEIGHTS_FILE}: tensor {tensor!r} has shape {list(shape)}; the base model needs {list(needed)}. The "
                "vocabulary was resized, or the adapter was trained on another model"
            )
    return tables


def _check_saved_modules(names: AdapterNames, tables: dict[str, str], peft: PeftConfig) -> None:
    paths = [norm.path for norm in names.norms.values()] + [names.saved[name].path for name in tables]
    for name in peft.modules_to_save:
        if not any(path.endswith(name) for path in paths):
            raise AdapterError(
                f"{WEIGHTS_FILE}: holds no weights of {name[:80]!r}, which modules_to_save in {CONFIG_FILE} names; "
                "save the adapter again with save_pretrained, or take the name out if the model has no such module"
            )


def _rows(
    file: TensorFile, names: AdapterNames, peft: PeftConfig, rules: ModuleRules, config: ModelConfig
) -> dict[str, RowNames]:
    wanted = {name: rules.token_ids(_path(names.rows.get(name), name)) for name in (EMBEDDING, HEAD)}
    _check_keys(names, peft)
    if config.tied_head and {EMBEDDING, HEAD} <= names.rows.keys() and wanted[HEAD] in ((), wanted[EMBEDDING]):
        raise _dropped_head_rows(names.rows[HEAD].tensor, is_named=bool(wanted[HEAD]))
    rows = {name: RowNames(placed.tensor, wanted[name]) for name, placed in names.rows.items()}
    for name, ids in wanted.items():
        if ids and name not in rows and not (name == HEAD and config.tied_head and ids == wanted[EMBEDDING]):
            raise AdapterError(
                f"{WEIGHTS_FILE}: holds no rows of {name}, which trainable_token_indices in {CONFIG_FILE} names; "
                "save the adapter again with save_pretrained"
            )
    for row_names in rows.values():
        _check_rows(file, row_names, config)
    if config.tied_head and EMBEDDING in rows and HEAD not in rows:
        rows[HEAD] = rows[EMBEDDING]
    return {name: row_names for name, row_names in rows.items() if row_names.ids}


def _dropped_head_rows(tensor: str, *, is_named: bool) -> AdapterError:
    """The error for rows of a tied head that are the embedding's, whether or not the config names them."""
    remedy = (
        "Train on this base, or name tokens of embed_tokens alone"
        if is_named
        else "Save the adapter again with save_embedding_layers=False"
    )
    return AdapterError(
        f"{WEIGHTS_FILE}: tensor {tensor!r} has the tokens of embed_tokens for the head; this base has one table for "
        f"both, so PEFT drops it. {remedy}"
    )


def _path(placed: SingleName | None, name: str) -> str:
    return _PATHS[name] if placed is None else placed.path


def _check_keys(names: AdapterNames, peft: PeftConfig) -> None:
    paths = [_path(names.rows.get(name), name) for name in (EMBEDDING, HEAD)]
    for path in paths:
        keys = [key for key in peft.token_indices if path.endswith(key)]
        if len(keys) > 1:  # PEFT trains the first one's rows, and unties a tied head because of the second
            raise AdapterError(
                f"{CONFIG_FILE}: trainable_token_indices names {path} twice, as {keys[0][:80]!r} and {keys[1][:80]!r}; "
                "name it once"
            )
    for key in peft.token_indices:
        if not any(path.endswith(key) for path in paths):
            raise AdapterError(
                f"{CONFIG_FILE}: trainable_token_indices names {key[:80]!r}; "
                "rows of embed_tokens and of lm_head are served"
            )


def _check_rows(file: TensorFile, rows: RowNames, config: ModelConfig) -> None:
    count = file.entries[rows.tensor].shape[0]
    if count != len(rows.ids):
        raise AdapterError(
            f"{WEIGHTS_FILE}: tensor {rows.tensor!r} has {count} rows; trainable_token_indices in {CONFIG_FILE} names "
            f"{len(rows.ids)} tokens for it; the two files come from different trainings"
        )
    beyond = next((token for token in rows.ids if token >= config.vocab_size), None)
    if beyond is not None:
        raise AdapterError(
            f"{CONFIG_FILE}: trainable_token_indices names token {beyond}; the base model has {config.vocab_size}. "
            "Train without resizing the vocabulary, new tokens in place of unused ones"
        )


def _refuse_conflicts(names: AdapterNames, tables: dict[str, str], rows: dict[str, RowNames]) -> None:
    """Refuse two changes of one path. PEFT does not combine them either, except lora_bias with shared rows."""
    for name in (EMBEDDING, HEAD):
        pair = names.pairs.get((MODEL, name))
        is_shared = rows.get(name) is not None and name not in names.rows  # the embedding's rows, on the head
        extra = _unaddable_part(pair) if is_shared else ""
        kinds = [
            *(["modules_to_save"] if name in tables else []),
            *(["a LoRA"] if pair is not None and (name in tables or not is_shared or extra) else []),
            *(["trainable_token_indices"] if name in rows else []),
        ]
        if len(kinds) > 1:
            tied = " on a base with one table for embedding and head" if is_shared else ""
            raise AdapterError(
                f"{CONFIG_FILE}: {name} is changed by {kinds[0]}{extra} and by {kinds[1]} at once, which is not "
                f"served{tied}; train with one of them"
            )


def _unaddable_part(pair: PairNames | None) -> str:
    """The part of a LoRA that cannot be added to rows of the table."""
    if pair is None:
        return ""
    return " with lora_bias" if pair.bias else " with DoRA" if pair.magnitude else ""


def float32_bytes(file: TensorFile, tensors: Iterable[str]) -> int:
    """Bytes of these tensors in memory as float32."""
    return sum(4 * math.prod(file.entries[tensor].shape) for tensor in tensors)
