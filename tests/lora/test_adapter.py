"""The digest changes with what the engine computes, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from intaglio.lora.adapter import LoraAdapter, digest_of
from intaglio.ops import MODEL, AdapterTensors, LoraPair, TokenRows

Pairs = dict[tuple[int, str], LoraPair]


def pairs() -> Pairs:
    random = np.random.default_rng(3)

    def pair(rank: int, in_features: int, out_features: int) -> LoraPair:
        a = random.normal(size=(rank, in_features)).astype(np.float32)
        return LoraPair(a, random.normal(size=(out_features, rank)).astype(np.float32))

    return {(0, "self_attn.q_proj"): pair(2, 7, 5), (1, "mlp.up_proj"): pair(3, 7, 11)}


def test_an_adapter_tells_its_size() -> None:
    adapter = LoraAdapter.of(AdapterTensors(pairs()))
    assert (adapter.rank, adapter.num_modules) == (3, 2)
    assert adapter.nbytes == 4 * (2 * (7 + 5) + 3 * (7 + 11))
    assert adapter.digest == digest_of(AdapterTensors(pairs())) and len(adapter.digest) == 64


def test_the_digest_does_not_depend_on_order_or_memory_layout() -> None:
    shuffled = {
        key: LoraPair(np.asfortranarray(pair.a), np.asfortranarray(pair.b)) for key, pair in reversed(pairs().items())
    }
    assert digest_of(AdapterTensors(shuffled)) == digest_of(AdapterTensors(pairs()))


def test_the_digest_changes_with_every_value_module_and_shape() -> None:
    seen = {digest_of(AdapterTensors(pairs()))}

    def is_new(changed: Pairs) -> bool:
        digest = digest_of(AdapterTensors(changed))
        is_unseen = digest not in seen
        seen.add(digest)
        return is_unseen

    for key in pairs():
        for half in ("a", "b"):
            changed = pairs()
            array = getattr(changed[key], half)
            array[1, 1] = np.nextafter(array[1, 1], np.float32(9))
            assert is_new(changed)
        assert is_new({other: pair for other, pair in pairs().items() if other != key})
    first, second = pairs().values()
    assert is_new({(0, "self_attn.k_proj"): first, (1, "mlp.up_proj"): second})
    assert is_new({(2, "self_attn.q_proj"): first, (1, "mlp.up_proj"): second})
    reshaped = LoraPair(first.a.reshape(7, 2), first.b.reshape(2, 5))  # the same bytes
    assert is_new({(0, "self_attn.q_proj"): reshaped, (1, "mlp.up_proj"): second})


def whole() -> AdapterTensors:
    """One of each kind of tensor."""
    random = np.random.default_rng(4)

    def floats(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return random.normal(size=shape).astype(np.float32)

    (key, pair), *_ = pairs().items()
    return AdapterTensors(
        {key: LoraPair(pair.a, pair.b, bias=floats(5), magnitude=floats(5))},
        {(0, "input_layernorm"): floats(7), (MODEL, "norm"): floats(7)},
        {"lm_head": floats(11, 7)},
        {"embed_tokens": TokenRows(np.array([3, 9], np.int32), floats(2, 7))},
    )


def test_an_adapter_counts_each_module_that_it_changes_once() -> None:
    adapter = LoraAdapter.of(whole())
    assert (adapter.rank, adapter.num_modules) == (2, 5)
    assert adapter.nbytes == 4 * (2 * (7 + 5) + 5 + 5 + 7 + 7 + 11 * 7 + 2 + 2 * 7)
    assert LoraAdapter.of(AdapterTensors({}, whole().norms)).rank == 0


def test_only_an_adapter_that_replaces_nothing_is_additive() -> None:
    key = (0, "self_attn.q_proj")
    pair = whole().pairs[key]
    assert AdapterTensors({key: LoraPair(pair.a, pair.b, bias=pair.bias)}).is_sum
    assert not AdapterTensors({key: LoraPair(pair.a, pair.b, magnitude=pair.magnitude)}).is_sum
    for part in ("norms", "tables", "rows"):
        assert not AdapterTensors({}, **{part: getattr(whole(), part)}).is_sum


def test_the_digest_changes_with_every_value_of_every_kind_of_tensor() -> None:
    key, seen = (0, "self_attn.q_proj"), {digest_of(whole())}
    arrays: list[Callable[[AdapterTensors], Any]] = [
        lambda tensors: tensors.pairs[key].bias,
        lambda tensors: tensors.pairs[key].magnitude,
        lambda tensors: tensors.norms[0, "input_layernorm"],
        lambda tensors: tensors.norms[MODEL, "norm"],
        lambda tensors: tensors.tables["lm_head"][4],
        lambda tensors: tensors.rows["embed_tokens"].rows[1],
        lambda tensors: tensors.rows["embed_tokens"].ids,
    ]
    for array_of in arrays:
        changed = whole()
        array = array_of(changed)
        array[1] += 1
        digest = digest_of(changed)
        assert digest not in seen
        seen.add(digest)


def test_the_digest_tells_a_bias_from_a_magnitude_and_one_table_from_the_other() -> None:
    tensors, (pair,) = whole(), whole().pairs.values()
    swapped = LoraPair(pair.a, pair.b, bias=pair.magnitude, magnitude=pair.bias)
    others = [
        AdapterTensors({(0, "self_attn.q_proj"): swapped}, tensors.norms, tensors.tables, tensors.rows),
        AdapterTensors(tensors.pairs, tensors.norms, {"embed_tokens": tensors.tables["lm_head"]}, tensors.rows),
        AdapterTensors(tensors.pairs, tensors.norms, tensors.tables, {"lm_head": tensors.rows["embed_tokens"]}),
    ]
    assert len({digest_of(tensors), *map(digest_of, others)}) == 4
