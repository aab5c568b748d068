"""An adapter's changes to a model and to one projection of a forward, and the rows of a step that have an adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from intaglio.ops.arrays import AdapterWeights, Array, Weight

ModuleKey: TypeAlias = tuple[int, str]  # (layer index, "self_attn.q_proj"), or (MODEL, "lm_head")
MODEL = -1  # in place of a layer index: embed_tokens, lm_head and norm belong to the model as a whole


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One adapter's matrices for one matrix W of the base: y = g ⊙ (x · Wᵀ + scale · (x · aᵀ) · bᵀ + bias).

    a          [rank, in_features] float32, or float16 or int8 to save memory
    b          [out_features, rank], of the same type; the adapter's own scaling is folded in
    scale      the factor that the pair's values were divided by to fit the smaller type: one number, or [rank] float32
    bias       [out_features] float32, the adapter's scaling folded in; None is 0
    magnitude  [out_features] float32, DoRA's m: g = m / |rows of W + scale · b · a|. None: g is 1.
               Source: DoRA (arXiv 2402.09353)

    For the embedding table, a is [rank, vocab] and b [hidden, rank], as in PEFT: token t gets
    E[t] + scale · a[:, t]ᵀ · bᵀ. Its magnitude and g are [hidden], because PEFT uses the norms of the columns of the
    changed table, over all tokens: g = m / |columns of E + scale · (b · a)ᵀ|. There is no bias.
    """

    a: Array
    b: Array
    scale: float | Array = 1.0
    bias: Array | None = None
    magnitude: Array | None = None

    @property
    def nbytes(self) -> int:
        vectors = (vector for vector in (self.bias, self.magnitude) if vector is not None)
        return int(self.a.nbytes) + int(self.b.nbytes) + sum(int(vector.nbytes) for vector in vectors)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of a table [vocab, hidden] that replace the base's: ids [n] int32, ascending, each once; rows
    [n, hidden] float32.
    """

    ids: Array
    rows: Array

    @property
    def nbytes(self) -> int:
        return int(self.ids.nbytes) + int(self.rows.nbytes)


@dataclass(frozen=True, slots=True)
class AdapterTensors:
    """All changes of one adapter to a base, as read from its files.

    pairs   module -> LoRA matrices; keys are the linear layers of a block, (MODEL, "embed_tokens") and
            (MODEL, "lm_head"), which are separate even if the base has one table for both
    norms   module -> [n] float32 in place of the module's weights, Gemma's +1 added: (3, "input_layernorm"),
            (3, "self_attn.q_norm"), (MODEL, "norm")
    tables  "embed_tokens" or "lm_head" -> [vocab, hidden] float32 in place of the whole table on that path
    rows    "embed_tokens" or "lm_head" -> single rows in place of the table's
    """

    pairs: Mapping[ModuleKey, LoraPair]
    norms: Mapping[ModuleKey, Array] = field(default_factory=dict)
    tables: Mapping[str, Array] = field(default_factory=dict)
    rows: Mapping[str, TokenRows] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        parts = (self.pairs, self.norms, self.tables, self.rows)
        return sum(int(tensor.nbytes) for part in parts for tensor in part.values())

    @property
    def is_sum(self) -> bool:
        """Whether it only adds to the base's outputs, so that it can be scaled and mixed with other adapters."""
        return not (self.norms or self.tables or self.rows) and all(p.magnitude is None for p in self.pairs.values())


class AdapterProjection(NamedTuple):
    """The changes of one adapter to one projection of a forward.

    weights  the matrices of the base that the projection multiplies with, or the table that it looks up
    pairs    one per matrix; None if the adapter does not change it
    norms    replacements of the projection's norm weights, in their order; None keeps the base's
    table    replacement of the projection's table
    rows     replacements of single rows of the table
    """

    weights: Sequence[Weight]
    pairs: Sequence[LoraPair | None]
    norms: Sequence[Array | None] = ()
    table: Weight | None = None
    rows: TokenRows | None = None


class LoraSegment(NamedTuple):
    """A run of rows with one adapter. Rows outside every segment belong to the base model.

    Segments may overlap: the shared rows get the sum of what the adapters add, in the order of the segments.

    weights  the adapter, from `Ops.adapter_weights`
    scale    factor on what the adapter adds; must be 1 if it is not a sum (`AdapterTensors.is_sum`)
    """

    start: int
    stop: int
    weights: AdapterWeights
    scale: float = 1.0
