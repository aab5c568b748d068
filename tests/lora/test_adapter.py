"""The digest changes with what the engine computes, and with nothing else."""

from __future__ import annotations

import numpy as np

from intaglio.lora.adapter import LoraAdapter, digest_of
from intaglio.ops import LoraPair

Pairs = dict[tuple[int, str], LoraPair]


def pairs() -> Pairs:
    random = np.random.default_rng(3)

    def pair(rank: int, in_features: int, out_features: int) -> LoraPair:
        a = random.normal(size=(rank, in_features)).astype(np.float32)
        return LoraPair(a, random.normal(size=(out_features, rank)).astype(np.float32))

    return {(0, "self_attn.q_proj"): pair(2, 7, 5), (1, "mlp.up_proj"): pair(3, 7, 11)}


def test_an_adapter_tells_its_size() -> None:
    adapter = LoraAdapter.from_pairs(pairs())
    assert (adapter.rank, adapter.num_modules) == (3, 2)
    assert adapter.nbytes == 4 * (2 * (7 + 5) + 3 * (7 + 11))
    assert adapter.digest == digest_of(pairs()) and len(adapter.digest) == 64


def test_the_digest_does_not_depend_on_order_or_memory_layout() -> None:
    shuffled = {
        key: LoraPair(np.asfortranarray(pair.a), np.asfortranarray(pair.b)) for key, pair in reversed(pairs().items())
    }
    assert digest_of(shuffled) == digest_of(pairs())


def test_the_digest_changes_with_every_value_module_and_shape() -> None:
    seen = {digest_of(pairs())}

    def is_new(changed: Pairs) -> bool:
        digest = digest_of(changed)
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
