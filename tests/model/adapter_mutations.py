"""Faults in the arithmetic of DoRA, biases, embeddings, heads, token rows, norms and tables. None raises an error.

Each fault is placed where a programmer would make it: in reading, in DoRA's gain, or in how an op combines results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.ops import MODEL, AdapterTensors, Array, LoraPair, TokenRows
from intaglio.ops.reference import ReferenceOps
from tests.golden.models import Parts

F32 = NDArray[np.float32]
Pairs = Mapping[Any, LoraPair]

EMBEDDING, HEAD = (MODEL, "embed_tokens"), (MODEL, "lm_head")


@dataclass(frozen=True, slots=True)
class AdapterMutation:
    """change: applied to the golden adapter `adapter` of `base`, as read; ops: the backend that computes with it."""

    name: str
    base: str
    adapter: str
    change: Callable[[AdapterTensors, Parts], AdapterTensors] = lambda tensors, parts: tensors
    ops: type[ReferenceOps] = ReferenceOps


def _pairs(change: Callable[[Pairs, Parts], Pairs]) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    return lambda tensors, parts: replace(tensors, pairs=change(tensors.pairs, parts))


def _each(key: Any, change: Callable[[LoraPair, Parts], LoraPair]) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    return _pairs(lambda pairs, parts: {**pairs, key: change(pairs[key], parts)})


def _all(change: Callable[[LoraPair], LoraPair]) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    return _pairs(lambda pairs, parts: {key: change(pair) for key, pair in pairs.items()})


def _without(key: Any) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    return _pairs(lambda pairs, parts: {other: pair for other, pair in pairs.items() if other != key})


def _scaled(pair: LoraPair, factor: float) -> LoraPair:
    return replace(pair, b=pair.b * np.float32(factor))


def _turned(pair: LoraPair) -> LoraPair:
    """An embedding's pair as a head's, or the reverse."""
    return LoraPair(np.ascontiguousarray(pair.b.T), np.ascontiguousarray(pair.a.T))


def _table(parts: Parts) -> F32:
    return parts.checkpoint.tensor("model.embed_tokens.weight")


def _rows(
    change: Callable[[Mapping[str, TokenRows], Parts], Mapping[str, TokenRows]],
) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    return lambda tensors, parts: replace(tensors, rows=change(tensors.rows, parts))


def _added(rows: Mapping[str, TokenRows], parts: Parts) -> Mapping[str, TokenRows]:
    return {name: TokenRows(one.ids, one.rows + _table(parts)[one.ids]) for name, one in rows.items()}


def _norms(factor: float, add: float) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    return lambda tensors, parts: replace(
        tensors, norms={key: norm * np.float32(factor) + np.float32(add) for key, norm in tensors.norms.items()}
    )


class _WrongGain(ReferenceOps):
    """DoRA with a wrong gain, computed by `wrong_gain` from W, b · a and m, all in the shape of a linear layer."""

    @staticmethod
    def wrong_gain(w: F32, delta: F32, magnitude: F32) -> F32:
        raise NotImplementedError

    def _dora_gain(self, weight: Any, pair: LoraPair | None) -> F32 | None:
        if pair is None or pair.magnitude is None:
            return None
        w = weight.rows(np.arange(weight.shape[0], dtype=np.int32))
        delta = pair.b @ pair.a
        return self.wrong_gain(w if w.shape == delta.shape else w.T, delta, pair.magnitude)


class GainWithoutDelta(_WrongGain):
    @staticmethod
    def wrong_gain(w: F32, delta: F32, magnitude: F32) -> F32:
        return magnitude / np.linalg.norm(w, axis=1)


class GainOfTheDelta(_WrongGain):
    @staticmethod
    def wrong_gain(w: F32, delta: F32, magnitude: F32) -> F32:
        return magnitude / np.linalg.norm(delta, axis=1)


class GainOverTheOutputs(_WrongGain):
    """A length for each input instead of each output; repeated or cut to the number of outputs."""

    @staticmethod
    def wrong_gain(w: F32, delta: F32, magnitude: F32) -> F32:
        return magnitude / np.resize(np.linalg.norm(w + delta, axis=0), magnitude.shape)


class GainNotDivided(_WrongGain):
    @staticmethod
    def wrong_gain(w: F32, delta: F32, magnitude: F32) -> F32:
        return magnitude


class GainForTheDeltaAlone(ReferenceOps):
    """y = x · Wᵀ + g ⊙ delta."""

    def linears(self, x: Array, weights: Any, plan: Any = None, projection: int = 0) -> tuple[Array, ...]:
        base = super().linears(x, weights)
        changed = super().linears(x, weights, plan, projection)
        out = []
        for i, (plain, total) in enumerate(zip(base, changed, strict=True)):
            result = total.copy()
            for segment in plan or ():
                gain, rows = segment.weights.gains[projection][i], slice(segment.start, segment.stop)
                if gain is not None:
                    result[rows] = plain[rows] + total[rows] - gain * plain[rows]
            out.append(result)
        return tuple(out)


def _swapped(one: str, other: str) -> Callable[[AdapterTensors, Parts], AdapterTensors]:
    names = {one: other, other: one}
    return _pairs(lambda pairs, parts: {(layer, names.get(name, name)): p for (layer, name), p in pairs.items()})


ADAPTER_MUTATIONS = (
    AdapterMutation("DoRA's magnitude ignored", "gemma", "dora", _all(lambda pair: replace(pair, magnitude=None))),
    AdapterMutation("DoRA's lengths without the delta", "gemma", "dora", ops=GainWithoutDelta),
    AdapterMutation("DoRA's lengths of the delta", "gemma", "dora", ops=GainOfTheDelta),
    AdapterMutation("DoRA's lengths over the wrong axis", "gemma", "dora", ops=GainOverTheOutputs),
    AdapterMutation("DoRA's magnitude not divided", "gemma", "dora", ops=GainNotDivided),
    AdapterMutation("DoRA's gain for the delta alone", "gemma", "dora", ops=GainForTheDeltaAlone),
    AdapterMutation("lora_bias dropped", "gemma", "bias", _all(lambda pair: replace(pair, bias=None))),
    AdapterMutation(
        "lora_bias unscaled", "gemma", "bias", _all(lambda pair: replace(pair, bias=pair.bias / np.float32(7 / 2)))
    ),
    AdapterMutation(
        "embedding delta without the adapter's scaling",
        "untied",
        "embedding",
        _each(EMBEDDING, lambda pair, parts: _scaled(pair, 2 / 9)),
    ),
    AdapterMutation(
        "embedding delta without the embedding's scale",
        "untied",
        "embedding",
        _each(EMBEDDING, lambda pair, parts: _scaled(pair, 1 / parts.config.embed_scale)),
    ),
    AdapterMutation("embedding delta dropped", "gemma2", "embedding_and_head", _without(EMBEDDING)),
    AdapterMutation(
        "embedding delta on the head too",
        "gemma2",
        "tied",
        _each(HEAD, lambda pair, parts: replace(pair, a=np.vstack([pair.a] * 2), b=np.hstack([pair.b] * 2))),
    ),
    AdapterMutation(
        "embedding delta on the head in place of the head's",
        "gemma2",
        "embedding_and_head",
        _pairs(lambda pairs, parts: {**pairs, HEAD: _turned(pairs[EMBEDDING])}),
    ),
    AdapterMutation(
        "head delta on the embedding in place of the embedding's",
        "gemma2",
        "embedding_and_head",
        _pairs(lambda pairs, parts: {**pairs, EMBEDDING: _turned(pairs[HEAD])}),
    ),
    AdapterMutation("head delta dropped", "gemma2", "embedding_and_head", _without(HEAD)),
    AdapterMutation("tied head left out", "gemma2", "tied", _without(HEAD)),
    AdapterMutation("token rows added", "gemma", "tokens", _rows(_added)),
    AdapterMutation(
        "token rows not on the tied head",
        "gemma",
        "tokens",
        _rows(lambda rows, parts: {"embed_tokens": rows["embed_tokens"]}),
    ),
    AdapterMutation(
        "token rows on an untied head",
        "untied",
        "tokens",
        _rows(lambda rows, parts: {**rows, "lm_head": rows["embed_tokens"]}),
    ),
    AdapterMutation(
        "token rows in another order than their ids",
        "gemma",
        "tokens",
        _rows(lambda rows, parts: {name: TokenRows(one.ids, one.rows[::-1]) for name, one in rows.items()}),
    ),
    AdapterMutation(
        "the embedding's tokens for the head's rows",
        "gemma2",
        "tokens_apart",
        _rows(lambda rows, parts: {**rows, "lm_head": rows["embed_tokens"]}),
    ),
    AdapterMutation(
        "token rows without the LoRA above them",
        "gemma3_text",
        "tokens_under_head",
        _rows(lambda rows, parts: {**rows, "lm_head": rows["embed_tokens"]}),
    ),
    AdapterMutation("norms without their 1", "gemma3_text", "norms", _norms(1, -1)),
    AdapterMutation("norms with their 1 twice", "gemma3_text", "norms", _norms(1, 1)),
    AdapterMutation("norms of the base", "gemma3_text", "norms", lambda tensors, parts: replace(tensors, norms={})),
    AdapterMutation(
        "one norm of a kind left out",
        "gemma3_text",
        "norms",
        lambda tensors, parts: replace(
            tensors, norms={key: norm for key, norm in tensors.norms.items() if key != (3, "self_attn.k_norm")}
        ),
    ),
    AdapterMutation(
        "a saved embedding ignored",
        "gemma3_text",
        "saved_embedding",
        lambda tensors, parts: replace(tensors, tables={}),
    ),
    AdapterMutation(
        "a saved embedding on the tied head too",
        "gemma3_text",
        "saved_embedding",
        lambda tensors, parts: replace(tensors, tables={**tensors.tables, "lm_head": tensors.tables["embed_tokens"]}),
    ),
    AdapterMutation("a saved head ignored", "untied", "saved_head", lambda tensors, parts: replace(tensors, tables={})),
    AdapterMutation(
        "a saved head for the embedding too",
        "untied",
        "saved_head",
        lambda tensors, parts: replace(tensors, tables={**tensors.tables, "embed_tokens": tensors.tables["lm_head"]}),
    ),
    AdapterMutation("half of the modules dropped", "gemma2", "tied", _without((1, "mlp.down_proj"))),
    AdapterMutation(
        "every module a layer later",
        "gemma2",
        "tied",
        _pairs(lambda pairs, parts: {(n + (n != MODEL), name): pair for (n, name), pair in pairs.items()}),
    ),
)

# For an adapter of all seven projections: two projections of one fused product exchanged.
FUSED_MUTATIONS = (
    AdapterMutation("k for v", "gemma", "rs_patterns", _swapped("self_attn.k_proj", "self_attn.v_proj")),
    AdapterMutation("gate for up", "gemma", "rs_patterns", _swapped("mlp.gate_proj", "mlp.up_proj")),
)
