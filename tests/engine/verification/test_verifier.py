"""A good adapter of any size is verified, and each slip between its files and what is served is refused.

Mutants are what a fault would have made of the adapter: the verification gets the good files and the bad weights, or a
backend of `Ops` that does something wrong with good ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.engine.verification.canary import canary_ids
from intaglio.engine.verification.verifier import Verifier, agreement
from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.packing import AdapterDtype, count_wider, pack_tensors
from intaglio.model.gemma import Gemma
from intaglio.model.loader import load_gemma
from intaglio.model.quantize import WeightFormat
from intaglio.ops import MODEL, AdapterTensors, Array, LoraPair, LoraSegment, ModuleKey, Ops, TokenRows, Weight
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from intaglio.request import Verification
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config
from tests.helpers.engines import write_tiny_model
from tests.helpers.kernels import ACTIVATION_ROUNDING, ENGINE_BACKENDS, VARIANT, arithmetic, backend

F32 = NDArray[np.float32]
BLOCK_SIZE = 4

Change = Callable[[AdapterTensors], AdapterTensors]


class Bench:
    """Tiny models, loaded once for each format and backend."""

    def __init__(self, folder: Path) -> None:
        self._folders = {family: write_tiny_model(folder / family, family) for family in FAMILIES}
        self.model = cache(self._load)

    def _load(
        self,
        fmt: WeightFormat,
        slip: type | None = None,
        family: Family = "gemma3_text",
        name: str = ENGINE_BACKENDS[0],
    ) -> tuple[Gemma, Ops]:
        ops = backend(name) if slip is None else backend_with(slip, name)
        return load_gemma(self._folders[family], ops, fmt), ops

    def verify(
        self,
        tensors: AdapterTensors,
        served: Change = lambda tensors: tensors,
        *,
        fmt: WeightFormat = "w8",
        dtype: AdapterDtype = "float16",
        slip: type | None = None,
        family: Family = "gemma3_text",
        name: str = ENGINE_BACKENDS[0],
    ) -> Verification:
        """Of an adapter that is served as `served` makes it, by the backend of that name, or with a slip before it."""
        model, ops = self.model(fmt, slip, family, name)
        weights = model.prepare_adapter(pack_tensors(served(tensors), dtype))
        return Verifier(model, ops, BLOCK_SIZE, dtype).verify(LoraAdapter.of(tensors), weights)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


HIDDEN, INNER, Q, KV = 48, 160, 128, 64
SHAPES: Mapping[str, tuple[int, int]] = {
    "self_attn.q_proj": (Q, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, Q),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
LAYERS = {"gemma": 3, "gemma2": 4, "gemma3_text": 7}


def random_pairs(rank: int, size: float, seed: int = 0, family: Family = "gemma3_text") -> dict[ModuleKey, LoraPair]:
    """size: of what the adapter adds, as a part of its input."""
    random = np.random.default_rng(seed)
    return {
        (layer, name): random_pair(random, out, inputs, rank, size)
        for layer in range(LAYERS[family])
        for name, (out, inputs) in SHAPES.items()
    }


def random_pair(random: np.random.Generator, out: int, inputs: int, rank: int, size: float) -> LoraPair:
    a = random.normal(0, inputs**-0.5, (rank, inputs)).astype(np.float32)
    return LoraPair(a, random.normal(0, size * rank**-0.5, (out, rank)).astype(np.float32))


def plain(rank: int = 4, size: float = 0.3, seed: int = 0) -> AdapterTensors:
    return AdapterTensors(random_pairs(rank, size, seed))


# -- what is verified

# The least relative change of products at which an additive adapter is compared.
LEAST_CHANGE = 0.02
ADAPTER_ROUNDING: Mapping[AdapterDtype, float] = {"float32": 0.0, "float16": 2.0**-12, "int8": 0.01}


def least_agreement(ops: Ops, fmt: WeightFormat, dtype: AdapterDtype) -> float:
    """Served and reference differ in their last bits, so activations are rounded independently in both: every product
    differs by the root of two times what that rounding is, beside the 2 % at least that the adapter changes. Matrices
    and norms carry both to the logits alike. An adapter's own rounding comes to that.
    """
    return (
        1 - math.sqrt(2) * ACTIVATION_ROUNDING[arithmetic(ops, fmt)] / LEAST_CHANGE - 2 * ADAPTER_ROUNDING[dtype] - 1e-3
    )


@pytest.mark.parametrize("name", ENGINE_BACKENDS)
@pytest.mark.parametrize(("size", "rank"), [(1e-5, 1), (1e-3, 7), (0.03, 1), (0.3, 7), (3.0, 1)])
@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [("f32", "float32"), ("w8", "float16"), pytest.param("w4", "float16", marks=VARIANT), ("w4", "int8")],
)
def test_a_good_adapter_of_any_size_is_verified(
    bench: Bench, fmt: WeightFormat, dtype: AdapterDtype, size: float, rank: int, name: str
) -> None:
    verification = bench.verify(plain(rank, size), fmt=fmt, dtype=dtype, name=name)
    assert (verification.rank, verification.num_modules, verification.scalable) == (rank, 49, True)
    assert verification.largest_change > verification.mean_change > 0
    assert verification.agreement > least_agreement(bench.model(fmt, name=name)[1], fmt, dtype)
    assert verification.num_tokens == 15


@pytest.mark.parametrize("name", ENGINE_BACKENDS)
@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("moved", [0.05, 1e-3])
def test_modules_whose_halves_cancel_are_verified_beside_others_of_the_same_step(
    bench: Bench, dtype: AdapterDtype, moved: float, name: str
) -> None:
    """Every second module is what a conversion from PiSSA makes; q, k and v are one step, and so are gate and up."""
    initial, way = random_pairs(4, 1.0, 1), random_pairs(4, 1.0, 2)
    pairs = random_pairs(4, 0.1, 3)
    for key in list(pairs)[::2]:
        a, b = initial[key].a + np.float32(moved) * way[key].a, initial[key].b + np.float32(moved) * way[key].b
        halves = np.concatenate([a, initial[key].a]), np.concatenate([b, -initial[key].b], axis=1)
        pairs[key] = LoraPair(*halves)
    tensors = AdapterTensors(pairs)
    verification = bench.verify(tensors, fmt="w4", dtype=dtype, name=name)
    assert verification.agreement > least_agreement(bench.model("w4", name=name)[1], "w4", dtype) - 0.05
    wider = count_wider(pack_tensors(tensors, dtype), dtype)
    assert wider == len(list(pairs)[::2])


@pytest.mark.parametrize("name", ENGINE_BACKENDS)
@pytest.mark.parametrize("fmt", ["f32", "w8", "w4"])
def test_the_reported_change_of_a_weak_adapter_is_in_proportion_to_it(
    bench: Bench, fmt: WeightFormat, name: str
) -> None:
    """Far below what rounding does to a logit: on one text that would be all one sees."""
    weak, weaker = (bench.verify(plain(4, size), fmt=fmt, name=name) for size in (1e-3, 1e-5))
    assert weak.mean_change / weaker.mean_change == pytest.approx(100, rel=0.2)
    assert weak.largest_change / weaker.largest_change == pytest.approx(100, rel=0.4)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_verified_on_each_family(bench: Bench, family: Family) -> None:
    tensors = AdapterTensors(random_pairs(4, 0.3, family=family))
    for name in ENGINE_BACKENDS:
        assert bench.verify(tensors, fmt="f32", dtype="float32", name=name, family=family).agreement > 0.999


def with_bias() -> AdapterTensors:
    random = np.random.default_rng(1)
    pairs = plain().pairs.items()
    return AdapterTensors({key: replace(pair, bias=vector(random, pair.b.shape[0])) for key, pair in pairs})


def with_magnitude() -> AdapterTensors:
    random = np.random.default_rng(2)
    pairs = plain().pairs.items()
    return AdapterTensors({key: replace(pair, magnitude=1 + vector(random, pair.b.shape[0])) for key, pair in pairs})


def with_norms() -> AdapterTensors:
    random = np.random.default_rng(3)
    norms = {(layer, "input_layernorm"): 1 + vector(random, HIDDEN) for layer in range(7)}
    norms |= {(2, "self_attn.q_norm"): 1 + vector(random, 32), (MODEL, "norm"): 1 + vector(random, HIDDEN)}
    return replace(plain(), norms=norms)


def with_table_pairs() -> AdapterTensors:
    random = np.random.default_rng(4)
    embedding, head = random_pair(random, HIDDEN, 256, 3, 2.0), random_pair(random, 256, HIDDEN, 3, 0.3)
    return AdapterTensors({**plain().pairs, (MODEL, "embed_tokens"): embedding, (MODEL, "lm_head"): head})


def with_tables() -> AdapterTensors:
    random = np.random.default_rng(5)
    return replace(plain(), tables={name: vector(random, 256, HIDDEN) for name in ("embed_tokens", "lm_head")})


def with_rows() -> AdapterTensors:
    """Of tokens that the fixed part of the text does not have, more than are added to it."""
    random = np.random.default_rng(6)
    ids = np.array([3, 5, 7, 9, 11, 13], np.int32)
    rows = {name: TokenRows(ids, vector(random, 6, HIDDEN)) for name in ("embed_tokens", "lm_head")}
    return replace(plain(), rows=rows)


def vector(random: np.random.Generator, *shape: int) -> F32:
    values: F32 = random.normal(0, 0.2, shape).astype(np.float32)
    return values


KINDS: Mapping[str, Callable[[], AdapterTensors]] = {
    "bias": with_bias,
    "magnitude": with_magnitude,
    "norms": with_norms,
    "table pairs": with_table_pairs,
    "tables": with_tables,
    "rows": with_rows,
}


@pytest.mark.parametrize("fmt", ["w8", pytest.param("f32", marks=VARIANT)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tensor_is_verified(bench: Bench, kind: str, fmt: WeightFormat) -> None:
    dtype: AdapterDtype = "float32" if fmt == "f32" else "float16"
    verification = bench.verify(KINDS[kind](), fmt=fmt, dtype=dtype)
    assert verification.agreement > least_agreement(bench.model(fmt)[1], fmt, dtype)
    assert verification.scalable == (kind in ("bias", "table pairs"))
    assert verification.num_tokens == (19 if kind == "rows" else 15)


def test_an_adapter_that_makes_the_model_erratic_is_not_refused_for_amplified_rounding(bench: Bench) -> None:
    """Not additive, so it cannot be compared at another scale."""
    pairs = random_pairs(4, 3.0).items()
    wild = AdapterTensors({key: replace(pair, magnitude=np.ones(pair.b.shape[0], np.float32)) for key, pair in pairs})
    for fmt in ("w8", "w4"):
        assert not bench.verify(wild, fmt=fmt).scalable


def test_a_weak_adapter_is_not_refused_for_rounding_that_the_base_does_not_show(bench: Bench) -> None:
    """Not additive, so it cannot be made stronger. A third of these was refused once."""
    weights = random_weights(tiny_config("gemma3_text"), 0)  # of which `write_tiny_model` makes its model
    base = {
        (layer, "input_layernorm"): 1 + weights[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(7)
    }
    for seed in range(12):
        random = np.random.default_rng(seed)
        norms = {key: norm * np.float32(1 + random.normal(0, 1e-4, HIDDEN)) for key, norm in base.items()}
        assert not bench.verify(AdapterTensors({}, norms=norms)).scalable


def test_agreement_is_never_below_0() -> None:
    assert [agreement(0.0, 2.0), agreement(0.5, 2.0), agreement(5.0, 2.0), agreement(0.0, 0.0)] == [1, 0.75, 0, 0]


# -- slips in weights


def on_pairs(change: Callable[[ModuleKey, LoraPair], LoraPair | None]) -> Change:
    def changed(tensors: AdapterTensors) -> AdapterTensors:
        pairs = {key: change(key, pair) for key, pair in tensors.pairs.items()}
        return replace(tensors, pairs={key: pair for key, pair in pairs.items() if pair is not None})

    return changed


def moved(to: Callable[[ModuleKey], ModuleKey]) -> Change:
    return lambda tensors: replace(tensors, pairs={to(key): pair for key, pair in tensors.pairs.items()})


def swapped(one: str, other: str) -> Change:
    names = {one: other, other: one}
    return moved(lambda key: (key[0], names.get(key[1], key[1])))


ONE = (3, "self_attn.k_proj")
HALF = np.array([2, 3, 0, 1])

SLIPS: Mapping[str, Change] = {
    "B doubled": on_pairs(lambda _, pair: replace(pair, b=pair.b * 2)),
    "B of one module doubled": on_pairs(lambda key, pair: replace(pair, b=pair.b * (2 if key == ONE else 1))),
    "a rank padded from 12 to 16": on_pairs(lambda _, pair: replace(pair, b=pair.b * 0.75)),
    "alpha forgotten": on_pairs(lambda _, pair: replace(pair, b=pair.b / 2)),
    "sign of A": on_pairs(lambda _, pair: replace(pair, a=-pair.a)),
    "one module dropped": on_pairs(lambda key, pair: None if key == ONE else pair),
    "k and v swapped": swapped("self_attn.k_proj", "self_attn.v_proj"),
    "gate and up swapped": swapped("mlp.gate_proj", "mlp.up_proj"),
    "layers shifted by one": moved(lambda key: ((key[0] + 1) % 7, key[1])),
    "halves of the rank swapped in B": on_pairs(lambda _, pair: replace(pair, b=pair.b[:, HALF])),
    "last rank lost": on_pairs(lambda _, pair: replace(pair, a=pair.a[:-1], b=pair.b[:, :-1])),
    "outputs of one module shifted": on_pairs(
        lambda key, pair: replace(pair, b=np.roll(pair.b, 1, axis=0)) if key == ONE else pair
    ),
    "another adapter's file": lambda tensors: plain(size=_size_of(tensors), seed=9),
}


def _size_of(tensors: AdapterTensors) -> float:
    pair = next(iter(tensors.pairs.values()))
    return float(pair.b.std() * pair.b.shape[1] ** 0.5)


@pytest.mark.parametrize(
    ("fmt", "dtype", "size"), [("f32", "float32", 1e-5), ("w8", "float16", 0.3), ("w4", "int8", 1e-5)]
)
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_the_served_weights_is_refused_however_small_the_adapter(
    bench: Bench, slip: str, fmt: WeightFormat, dtype: AdapterDtype, size: float
) -> None:
    with pytest.raises(AdapterError, match=r"served result differs by \S+ .*; allowed is"):
        bench.verify(plain(size=size), SLIPS[slip], fmt=fmt, dtype=dtype)


def without_norm(lost: ModuleKey) -> Change:
    return lambda tensors: replace(tensors, norms={key: norm for key, norm in tensors.norms.items() if key != lost})


def unseen_embedding_lost(tensors: AdapterTensors) -> AdapterTensors:
    """All that an adapter has for tokens beyond those of the text that it is verified on."""
    unseen = np.setdiff1d(np.arange(256), canary_ids(256, [3, 5, 7, 9]))
    pairs, tables, rows = dict(tensors.pairs), dict(tensors.tables), dict(tensors.rows)
    if (MODEL, "embed_tokens") in pairs:
        pair = pairs[MODEL, "embed_tokens"]
        pairs[MODEL, "embed_tokens"] = replace(pair, a=np.where(np.isin(np.arange(256), unseen), 0, pair.a))
    if "embed_tokens" in tables:
        tables["embed_tokens"] = np.where(np.isin(np.arange(256), unseen)[:, None], 0, tables["embed_tokens"])
    if "embed_tokens" in rows:
        ids, values = rows["embed_tokens"].ids, rows["embed_tokens"].rows
        rows["embed_tokens"] = TokenRows(ids, np.where(np.isin(ids, unseen)[:, None], 0, values))
    return replace(tensors, pairs=pairs, tables=tables, rows=rows)


LOST: Mapping[str, tuple[Callable[[], AdapterTensors], Change]] = {
    "bias": (with_bias, on_pairs(lambda _, pair: replace(pair, bias=None))),
    "bias of one module": (with_bias, on_pairs(lambda key, pair: replace(pair, bias=None) if key == ONE else pair)),
    "magnitude": (with_magnitude, on_pairs(lambda _, pair: replace(pair, magnitude=None))),
    "magnitude of one module": (
        with_magnitude,
        on_pairs(lambda key, pair: replace(pair, magnitude=None) if key == ONE else pair),
    ),
    "first norm": (with_norms, without_norm((0, "input_layernorm"))),
    "norm behind a layer": (with_norms, without_norm((4, "input_layernorm"))),
    "norm of q": (with_norms, without_norm((2, "self_attn.q_norm"))),
    "last norm": (with_norms, without_norm((MODEL, "norm"))),
    "embedding pair of other tokens": (with_table_pairs, unseen_embedding_lost),
    "embedding table of other tokens": (with_tables, unseen_embedding_lost),
    "embedding rows of other tokens": (with_rows, unseen_embedding_lost),
    "embedding pair": (with_table_pairs, on_pairs(lambda key, pair: None if key[1] == "embed_tokens" else pair)),
    "head pair": (with_table_pairs, on_pairs(lambda key, pair: None if key[1] == "lm_head" else pair)),
    "embedding table": (with_tables, lambda tensors: replace(tensors, tables={"lm_head": tensors.tables["lm_head"]})),
    "head table": (
        with_tables,
        lambda tensors: replace(tensors, tables={"embed_tokens": tensors.tables["embed_tokens"]}),
    ),
    "embedding rows": (with_rows, lambda tensors: replace(tensors, rows={"lm_head": tensors.rows["lm_head"]})),
    "head rows": (with_rows, lambda tensors: replace(tensors, rows={"embed_tokens": tensors.rows["embed_tokens"]})),
}


@pytest.mark.parametrize("fmt", ["w8", pytest.param("f32", marks=VARIANT)])
@pytest.mark.parametrize("part", LOST)
def test_an_adapter_with_a_lost_part_is_refused(bench: Bench, part: str, fmt: WeightFormat) -> None:
    make, lose = LOST[part]
    with pytest.raises(AdapterError, match=r"differs? by"):
        bench.verify(make(), lose, fmt=fmt, dtype="float32" if fmt == "f32" else "float16")


# -- slips in the engine: classes that are put before a backend's own


def backend_with(slip: type, name: str) -> Ops:
    if name == "reference":
        return type(slip.__name__, (slip, ReferenceOps), {})()  # type: ignore[no-any-return]
    return type(slip.__name__, (slip, CpuOps), {})(2, name)  # type: ignore[no-any-return]


class WrongPlan:
    """Another plan than the one that was asked for, where rows of several sequences meet."""

    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        raise NotImplementedError

    def lora_plan(self, segments: Sequence[LoraSegment]) -> Any:
        return super().lora_plan(self.planned(list(segments)) if len(segments) == 3 else segments)


class IgnoresScales(WrongPlan):
    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        return [segment._replace(scale=1.0) for segment in segments]


class ScalesFallShort(WrongPlan):
    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        return [segment._replace(scale=0.75 * segment.scale) for segment in segments]


class OnlyTheFirstOfAMix(WrongPlan):
    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        return segments[:2]


class StartsOneRowLate(WrongPlan):
    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        return [segment._replace(start=segment.start + 1) for segment in segments]


class StartsOneRowEarly(WrongPlan):
    """The base's last row gets the adapter."""

    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        first = min(segment.start for segment in segments)
        return [segment._replace(start=max(0, segment.start - (segment.start == first))) for segment in segments]


class StopsOneRowEarly(WrongPlan):
    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        return [segment._replace(stop=segment.stop - 1) for segment in segments]


class ForgetsAdaptersOfSingleRows(WrongPlan):
    """As if decoding had a path of its own, and that one no adapters."""

    def planned(self, segments: list[LoraSegment]) -> list[LoraSegment]:
        return [segment for segment in segments if segment.stop - segment.start > 1]


class HeadWithoutAdapters:
    def logits(self, x: Array, table: Weight, softcap: float | None, plan: Any = None, call: int = 0) -> Array:
        return super().logits(x, table, softcap)


class MlpWithTheCallBefore:
    def gated_linear(self, x: Array, gate: Weight, up: Weight, plan: Any = None, call: int = 0) -> Array:
        return super().gated_linear(x, gate, up)


FOURTH_LAYER = 1 + 4 * 3  # its first call


def without_adapters_in(wrong_call: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    *others, plan, call = arguments
    return (*others, None if call == wrong_call else plan, call)


class OneAttentionWithout:
    def self_attention(self, *arguments: Any) -> Array:
        return super().self_attention(*without_adapters_in(FOURTH_LAYER, arguments))


class OneMlpWithout:
    def gated_linear(self, x: Array, gate: Weight, up: Weight, plan: Any = None, call: int = 0) -> Array:
        return super().gated_linear(x, gate, up, None if call == FOURTH_LAYER + 2 else plan, call)


class OneProjectionWithout:
    def add_projection(self, *arguments: Any) -> tuple[Array, Array]:
        return super().add_projection(*without_adapters_in(FOURTH_LAYER + 3, arguments))


ENGINE_SLIPS = (
    IgnoresScales,
    ScalesFallShort,
    OnlyTheFirstOfAMix,
    StartsOneRowLate,
    StartsOneRowEarly,
    StopsOneRowEarly,
    ForgetsAdaptersOfSingleRows,
    HeadWithoutAdapters,
    MlpWithTheCallBefore,
    OneAttentionWithout,
    OneMlpWithout,
    OneProjectionWithout,
)


@pytest.mark.parametrize("size", [1e-4, pytest.param(0.3, marks=VARIANT)])
@pytest.mark.parametrize("slip", ENGINE_SLIPS)
def test_a_slip_around_the_products_is_refused(bench: Bench, slip: type, size: float) -> None:
    pairs = plain(size=size).pairs
    head = random_pair(np.random.default_rng(4), 256, HIDDEN, 3, size)
    tensors = AdapterTensors({**pairs, (MODEL, "lm_head"): head})
    bench.verify(tensors)
    with pytest.raises(AdapterError, match=r"differs? by|the base's logits differ"):
        bench.verify(tensors, slip=slip)


# -- adapters without effect or with values that are not finite


@pytest.mark.parametrize("name", ENGINE_BACKENDS)
@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [
        ("f32", "float32"),
        pytest.param("bf16", "float32", marks=VARIANT),
        ("w8", "float16"),
        pytest.param("w5", "float16", marks=VARIANT),
        pytest.param("w4", "float16", marks=VARIANT),
        ("w4", "int8"),
    ],
)
def test_an_adapter_whose_changes_are_below_rounding_is_refused(
    bench: Bench, fmt: WeightFormat, dtype: AdapterDtype, name: str
) -> None:
    for size in (0.0, 1e-30, 1e-10, 1e-8):
        with pytest.raises(AdapterError, match=r"changes nothing: .* rounding alone is"):
            bench.verify(plain(size=size), fmt=fmt, dtype=dtype, name=name)


def test_an_adapter_that_reduces_a_result_to_zero_has_an_effect(bench: Bench) -> None:
    """Of an embedding of zeros every result is 0, and no part of that."""
    zeros = AdapterTensors({}, tables={"embed_tokens": np.zeros((256, HIDDEN), np.float32)})
    assert bench.verify(zeros).largest_change > 0


@pytest.mark.parametrize("name", ENGINE_BACKENDS)
@pytest.mark.parametrize("fmt", ["f32", "w8", "w4"])
def test_an_adapter_that_repeats_parts_of_the_base_changes_nothing(bench: Bench, fmt: WeightFormat, name: str) -> None:
    """Norms as they are, and the lengths of the base's own rows as a magnitude: nothing that was trained."""
    weights = random_weights(tiny_config("gemma3_text"), 0)  # of which `write_tiny_model` makes its model
    norms = {
        (layer, "input_layernorm"): 1 + weights[f"model.layers.{layer}.input_layernorm.weight"] for layer in range(7)
    }
    with pytest.raises(AdapterError, match="changes nothing"):
        bench.verify(AdapterTensors({}, norms=norms), fmt=fmt, name=name)


def test_an_adapter_that_makes_logits_infinite_is_refused(bench: Bench) -> None:
    with pytest.raises(AdapterError, match="not finite"):
        bench.verify(plain(size=1e25), fmt="f32", dtype="float32")
