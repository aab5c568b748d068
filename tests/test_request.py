"""What a request says of its adapters: one form for each meaning, and one identity for each form."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from intaglio.errors import BadInputError
from intaglio.request import MAX_ADAPTERS, AdapterRef, SamplingParams, ScaledAdapter, canonical_mix, mix_identity

A, B, C = (AdapterRef(letter * 64, f"folder of {letter}") for letter in "abc")


def test_order_and_adapters_at_scale_zero_do_not_change_a_mix() -> None:
    asked = [ScaledAdapter(A, 0.5), ScaledAdapter(B, 0.0), ScaledAdapter(C, 2.0)]
    for order in itertools.permutations(asked):
        assert canonical_mix(order) == (asked[0], asked[2])
    assert canonical_mix([ScaledAdapter(A, 0.0), ScaledAdapter(B, -0.0)]) == ()


def test_scales_are_rounded_to_float32() -> None:
    (one,) = canonical_mix([ScaledAdapter(A, 0.7)])
    assert one.scale == 0.699999988079071
    assert canonical_mix([one]) == (one,)
    assert canonical_mix([ScaledAdapter(A, 1e-60)]) == (), "what float32 rounds to 0 has no effect, so it is none"


@pytest.mark.parametrize("scale", [10.5, -10.5, math.inf, -math.inf, math.nan])
def test_a_scale_out_of_bounds_is_refused_by_name(scale: float) -> None:
    with pytest.raises(BadInputError, match=rf"aaaaaaaaaaaa is {scale}.* -10 to 10"):
        canonical_mix([ScaledAdapter(A, scale)])


def test_scales_at_the_bounds_are_accepted() -> None:
    assert [one.scale for one in canonical_mix([ScaledAdapter(A, 10), ScaledAdapter(B, -10)])] == [10.0, -10.0]


def test_one_adapter_twice_is_refused_also_from_another_folder() -> None:
    with pytest.raises(BadInputError, match=r"aaaaaaaaaaaa .*twice"):
        canonical_mix([ScaledAdapter(A), ScaledAdapter(B), ScaledAdapter(AdapterRef(A.digest, "elsewhere"), 0.5)])


def test_more_adapters_than_the_most_are_refused() -> None:
    many = [ScaledAdapter(AdapterRef(f"{number:064}", "")) for number in range(MAX_ADAPTERS + 1)]
    assert len(canonical_mix(many[1:])) == MAX_ADAPTERS
    with pytest.raises(BadInputError, match=r"9 adapters.* 8"):
        canonical_mix(many)


def test_one_adapter_at_scale_one_keeps_its_digest_and_every_other_mix_has_its_own_identity() -> None:
    assert mix_identity([]) is None
    assert mix_identity([ScaledAdapter(A)]) == A.digest
    mixes = [
        [ScaledAdapter(A)],
        [ScaledAdapter(A, 0.5)],
        [ScaledAdapter(A, -1.0)],
        [ScaledAdapter(B)],
        [ScaledAdapter(A), ScaledAdapter(B)],
        [ScaledAdapter(A), ScaledAdapter(C)],
        [ScaledAdapter(A, 0.5), ScaledAdapter(B)],
        [ScaledAdapter(A), ScaledAdapter(B, 0.5)],
        [ScaledAdapter(A), ScaledAdapter(B), ScaledAdapter(C)],
    ]
    assert len({mix_identity(mix) for mix in mixes}) == len(mixes)
    assert all(len(mix_identity(mix) or "") == 64 for mix in mixes)


def test_the_folder_is_not_part_of_the_identity() -> None:
    moved = ScaledAdapter(AdapterRef(A.digest, "elsewhere"), 0.5)
    assert mix_identity([moved]) == mix_identity([ScaledAdapter(A, 0.5)])


@pytest.mark.parametrize("value", ["hot", True, [1]])
def test_a_sampling_parameter_of_another_type_is_refused_by_name(value: Any) -> None:
    with pytest.raises(BadInputError, match=r"^temperature is .*; a number is needed$"):
        SamplingParams(temperature=value)
