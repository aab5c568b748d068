"""Reads the values of checked tensors as float32, and folds the adapter's arithmetic in.

    LoRA       b and bias times the module's scaling, so the engine needs no alpha
    norms      plus the 1 that Hugging Face files leave out
    rows       sorted by token; with a LoRA on the same path, its product for these rows is added
Source: peft 0.21.2, tuners/lora/layer.py and tuners/trainable_tokens/layer.py.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import AdapterError
from intaglio.lora.peft.config import CONFIG_FILE
from intaglio.lora.peft.module_rules import ModuleRules
from intaglio.lora.peft.replacements import Replacements, RowNames
from intaglio.lora.peft.safetensors_file import TensorFile
from intaglio.lora.peft.tensor_names import EMBEDDING, HEAD, WEIGHTS_FILE, AdapterNames, PairNames
from intaglio.ops import MODEL, AdapterTensors, LoraPair, TokenRows

F32 = NDArray[np.float32]


def read_tensors(
    file: TensorFile, names: AdapterNames, replaced: Replacements, rules: ModuleRules, *, ties_head: bool
) -> AdapterTensors:
    """Read all tensors. ties_head: head and embedding must have the same table, and the same LoRA with A and B swapped.

    Raises AdapterError for a value that is not finite, before or after scaling, and for an adapter without effect.
    """
    if ties_head:
        _check_tied(file, names, replaced)
    pairs = {key: _read_pair(file, pair, rules) for key, pair in names.pairs.items()}
    tensors = AdapterTensors(
        pairs,
        norms={key: file.read(norm.tensor) + np.float32(1) for key, norm in names.norms.items()},
        tables={name: file.read(tensor) for name, tensor in sorted(replaced.tables.items())},
        rows={name: _read_rows(file, rows, pairs.get((MODEL, name))) for name, rows in sorted(replaced.rows.items())},
    )
    if not (tensors.norms or tensors.tables or tensors.rows or any(_has_effect(pair) for pair in pairs.values())):
        raise AdapterError(
            f"{WEIGHTS_FILE}: every product of lora_B, lora_A and the scaling is zero, so the adapter would change "
            "nothing; it was not trained, or lora_alpha is 0"
        )
    return tensors


def _read_pair(file: TensorFile, names: PairNames, rules: ModuleRules) -> LoraPair:
    a, b = file.read(names.a), file.read(names.b)
    scaling = rules.scaling(names.path, rules.rank(names.path))
    bias = None if names.bias is None else _scaled(file.read(names.bias), scaling, names.bias, names.path)
    magnitude = None if names.magnitude is None else file.read(names.magnitude)
    return LoraPair(a, _scaled(b, scaling, names.b, names.path), bias=bias, magnitude=magnitude)


def _scaled(values: F32, scaling: float, tensor: str, path: str) -> F32:
    """values · scaling, in place."""
    with np.errstate(over="ignore", invalid="ignore"):  # checked in the next line, with the tensor's name
        values *= np.float32(scaling)
    if not np.isfinite(values).all():
        raise AdapterError(
            f"{CONFIG_FILE}: the scaling of {path} is {scaling:g} (lora_alpha, alpha_pattern over rank), "
            f"which takes {tensor!r} beyond float32; correct lora_alpha"
        )
    return values


def _has_effect(pair: LoraPair) -> bool:
    """Whether the pair changes anything. A magnitude alone does not: it starts as the norms that divide it."""
    return bool(pair.a.any() and pair.b.any()) or (pair.bias is not None and bool(pair.bias.any()))


def _read_rows(file: TensorFile, names: RowNames, pair: LoraPair | None) -> TokenRows:
    """pair: a LoRA on the same path (only the head can have one). Its product for these rows is added to them:

    x · Rᵀ + (x · aᵀ) · bᵀ = x · (R + b · a)ᵀ
    """
    ids = np.array(names.ids, np.int32)
    order = np.argsort(ids)
    ids, rows = ids[order], file.read(names.tensor)[order]
    if pair is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # checked in the next line, with the tensor's name
            rows = rows + pair.b[ids] @ pair.a
        if not np.isfinite(rows).all():
            raise AdapterError(
                f"{WEIGHTS_FILE}: with the LoRA on {HEAD}, rows of {names.tensor!r} exceed float32; "
                "the training diverged or the file is damaged"
            )
    return TokenRows(ids, np.ascontiguousarray(rows, np.float32))


def _check_tied(file: TensorFile, names: AdapterNames, replaced: Replacements) -> None:
    embedding, head = names.pairs.get((MODEL, EMBEDDING)), names.pairs.get((MODEL, HEAD))
    same = True
    if embedding is not None and head is not None:
        same &= np.array_equal(file.read(embedding.a), file.read(head.b).T)
        same &= np.array_equal(file.read(embedding.b), file.read(head.a).T)
    if EMBEDDING in replaced.tables and HEAD in replaced.tables:
        same &= np.array_equal(file.read(replaced.tables[EMBEDDING]), file.read(replaced.tables[HEAD]))
    if not same:
        raise AdapterError(
            f"{CONFIG_FILE}: ensure_weight_tying is on, but what {WEIGHTS_FILE} has for embed_tokens and for lm_head "
            "differs; turn it off if they were trained apart"
        )
