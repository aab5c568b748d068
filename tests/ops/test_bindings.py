"""The extension module's own checks: whatever shape comes in, it is computed or refused, and no kernel runs astray.

Called below `CpuOps`, which would refuse some of it first. A kernel that reads or writes outside its arrays ends the
process, so a crash fails the whole run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.ops._cpu import AdapterWeights, AttentionPlan, Device, LoraPlan, pack
from tests.helpers.drawn_cases import drawn_cases
from tests.ops.backends import KERNELS

F32 = np.float32


def zeros(*shape: int) -> Any:
    return np.zeros(shape, F32)


def ones(*shape: int) -> Any:
    return np.ones(shape, F32)


def whole(*values: int) -> Any:
    return np.array(values, np.int32)


def plain(out: int, inputs: int) -> Any:
    return pack(0, out, inputs, zeros(out, inputs).view(np.uint8))


def plan(rows: list[tuple[int, int, int, int, list[int]]], block_size: int = 4) -> AttentionPlan:
    return AttentionPlan(rows, block_size)


def adapter(*pairs: Any, bias: Any = None, gain: Any = None, norms: Sequence[Any] = ()) -> AdapterWeights:
    """One for a forward of a single projection."""
    return AdapterWeights([([pair if pair is None else (*pair, bias, gain) for pair in pairs], list(norms))])


def adapted(device: Device, start: int, stop: int, weights: AdapterWeights, projection: int = 0) -> None:
    device.linears(zeros(2, 4), [plain(5, 4)], LoraPlan([(start, stop, weights, 1.0)]), projection, (zeros(2, 5),))


def looked_up(device: Device, weights: AdapterWeights, stop: int = 2) -> None:
    """Two rows of a table of five with rows of 4."""
    device.embed(plain(5, 4), whole(1, 2), 1.0, LoraPlan([(0, stop, weights, 1.0)]), 0, zeros(2, 4))


def normed(device: Device, segments: Sequence[tuple[int, int, Any]]) -> None:
    """rms_norm of two rows of 4."""
    plan = LoraPlan([(start, stop, adapter(None, norms=[norm]), 1.0) for start, stop, norm in segments])
    device.rms_norm(zeros(2, 4), zeros(4), 1e-6, plan, 0, zeros(2, 4))


def project(device: Device, **changes: Any) -> None:
    """add_projection of rows of 3 onto rows of 4."""
    arguments = {
        "x": zeros(2, 4),
        "y": zeros(2, 3),
        "matrix": plain(4, 3),
        "plan": None,
        "projection": 0,
        "post": zeros(4),
        "weight": zeros(4),
        "eps": 1e-6,
        "sum": zeros(2, 4),
        "normed": zeros(2, 4),
    }
    device.add_projection(**(arguments | changes))


def int8(*shape: int) -> Any:
    return np.zeros(shape, np.int8)


def attend(device: Device, **changes: Any) -> None:
    """self_attention of two rows of 5: four heads of 8 over two of keys, the last two of six tokens."""
    arguments = {
        "x": zeros(2, 5),
        "q": plain(32, 5),
        "k": plain(16, 5),
        "v": plain(16, 5),
        "lora": None,
        "projection": 0,
        "q_norm": None,
        "k_norm": None,
        "eps": 1e-6,
        "angles": zeros(6, 8),
        "keys": zeros(2, 3, 4, 2, 8),
        "values": zeros(2, 3, 4, 2, 8),
        "key_scales": None,
        "value_scales": None,
        "layer": 1,
        "plan": plan([(0, 2, 6, 0, [2, 0])]),
        "scale": 1.0,
        "window": 0,
        "softcap": 0.0,
        "out": zeros(2, 32),
    }
    device.self_attention(**(arguments | changes))


REFUSED: dict[str, Callable[[Device], object]] = {
    "format": lambda d: pack(4, 1, 1, np.zeros(4, np.uint8)),
    "no rows": lambda d: pack(0, 0, 4, np.zeros(0, np.uint8)),
    "negative shape": lambda d: pack(0, -1, -4, np.zeros(16, np.uint8)),
    "huge shape": lambda d: pack(0, 2**62, 4, np.zeros(0, np.uint8)),
    "too few values": lambda d: pack(2, 17, 33, np.zeros(2 * 512, np.uint8), np.zeros((2, 2, 16), np.uint16)),
    "no scales": lambda d: pack(2, 1, 1, np.zeros(512, np.uint8)),
    "too few scales": lambda d: pack(2, 17, 1, np.zeros(1024, np.uint8), np.zeros((1, 1, 16), np.uint16)),
    "no matrix": lambda d: d.linears(zeros(2, 4), [None], None, 0, (zeros(2, 5),)),
    "a segment without an adapter": lambda d: LoraPlan([(0, 1, None, 1.0)]),
    "no scales of w4": lambda d: pack(3, 1, 1, np.zeros(256, np.uint8)),
    "too few minima": lambda d: pack(
        3, 1, 1, np.zeros(256, np.uint8), np.zeros((1, 1, 16), np.uint16), np.zeros((1, 0, 16), np.uint16)
    ),
    "width of a bias": lambda d: adapter((zeros(2, 4), zeros(2, 5), ones(2)), bias=zeros(4)),
    "width of a gain": lambda d: adapter((zeros(2, 4), zeros(2, 5), ones(2)), gain=zeros(3)),
    "a bias of a lookup": lambda d: looked_up(d, adapter((zeros(2, 5), zeros(2, 4), ones(2)), bias=zeros(4))),
    "a lookup in another table": lambda d: looked_up(d, adapter((zeros(2, 4), zeros(2, 5), ones(2)))),
    "a lookup past the rows": lambda d: looked_up(d, adapter(None), stop=3),
    "a lookup of two tables": lambda d: looked_up(d, adapter(None, None)),
    "width of a norm": lambda d: normed(d, [(0, 1, zeros(3))]),
    "two norms for one row": lambda d: normed(d, [(0, 2, zeros(4)), (1, 2, zeros(4))]),
    "an adapter of other sizes": lambda d: AdapterWeights.attach(
        [([[2, 4, 5, 4, 0, 0]], [])], np.zeros(8, np.uint8), zeros(2)
    ),
    "an adapter of no size": lambda d: AdapterWeights.attach(
        [([[2, 4, 5, 3, 0, 0]], [])], np.zeros(0, np.uint8), zeros(2)
    ),
    "a negative rank": lambda d: AdapterWeights.attach([([[-2, 4, 5, 4, 0, 0]], [])], np.zeros(0, np.uint8), zeros(0)),
    "types of A and B": lambda d: adapter((zeros(2, 4), zeros(2, 5).astype(np.float16), ones(2))),
    "adapters in whole numbers": lambda d: adapter((np.zeros((2, 4), np.int16), np.zeros((2, 5), np.int16), ones(2))),
    "adapters of unsigned numbers": lambda d: adapter(
        (np.zeros((2, 4), np.uint8), np.zeros((2, 5), np.uint8), ones(2))
    ),
    "adapters in double precision": lambda d: adapter((np.zeros((2, 4)), np.zeros((2, 5)), ones(2))),
    "a scale too few": lambda d: adapter((zeros(2, 4), zeros(2, 5), ones(1))),
    "ranks of A and B": lambda d: adapter((zeros(2, 4), zeros(3, 5), ones(2))),
    "x too narrow": lambda d: d.linears(zeros(2, 3), [plain(5, 4)], None, 0, (zeros(2, 5),)),
    "output too short": lambda d: d.linears(zeros(2, 4), [plain(5, 4)], None, 0, (zeros(1, 5),)),
    "output too narrow": lambda d: d.linears(zeros(2, 4), [plain(5, 4)], None, 0, (zeros(2, 4),)),
    "output missing": lambda d: d.linears(zeros(2, 4), [plain(5, 4)], None, 0, ()),
    "segment past the rows": lambda d: adapted(d, 1, 3, adapter(None)),
    "segment backwards": lambda d: adapted(d, 2, 1, adapter(None)),
    "segment before the rows": lambda d: adapted(d, -1, 1, adapter(None)),
    "adapter without the projection": lambda d: adapted(d, 0, 1, adapter(None), projection=1),
    "projection before the first": lambda d: adapted(d, 0, 1, adapter(None), projection=-1),
    "adapter of another projection": lambda d: adapted(d, 0, 1, adapter(None, None)),
    "adapter of another width": lambda d: adapted(d, 0, 1, adapter((zeros(2, 3), zeros(2, 5), ones(2)))),
    "adapter of another height": lambda d: adapted(d, 0, 1, adapter((zeros(2, 4), zeros(2, 6), ones(2)))),
    "token id past the table": lambda d: d.embed(plain(5, 4), whole(5), 1.0, None, 0, zeros(1, 4)),
    "negative token id": lambda d: d.embed(plain(5, 4), whole(-1), 1.0, None, 0, zeros(1, 4)),
    "norm width": lambda d: d.rms_norm(zeros(2, 4), zeros(3), 1e-6, None, 0, zeros(2, 4)),
    "first summand": lambda d: project(d, x=zeros(1, 4)),
    "projected rows": lambda d: project(d, y=zeros(1, 3)),
    "projected width": lambda d: project(d, matrix=plain(5, 3)),
    "projection's inputs": lambda d: project(d, matrix=plain(4, 2)),
    "post norm width": lambda d: project(d, post=zeros(3)),
    "next norm width": lambda d: project(d, weight=zeros(5)),
    "sum": lambda d: project(d, sum=zeros(2, 3)),
    "normed sum": lambda d: project(d, normed=zeros(1, 4)),
    "blocks whose size is 0 in 32 bits": lambda d: plan([(0, 1, 1, 0, [0])], 2**32),
    "gate and up": lambda d: d.gated_linear(zeros(2, 4), plain(5, 4), plain(6, 4), None, 0, zeros(2, 5)),
    "gated output": lambda d: d.gated_linear(zeros(2, 4), plain(5, 4), plain(5, 4), None, 0, zeros(2, 4)),
    "gated input": lambda d: d.gated_linear(zeros(2, 3), plain(5, 4), plain(5, 4), None, 0, zeros(2, 5)),
    "position without angles": lambda d: attend(d, angles=zeros(5, 8)),
    "angles of another head size": lambda d: attend(d, angles=zeros(6, 6)),
    "k of other heads": lambda d: attend(d, k=plain(24, 5)),
    "v of other heads": lambda d: attend(d, v=plain(8, 5)),
    "q of other inputs": lambda d: attend(d, q=plain(32, 4)),
    "int8 without scales": lambda d: attend(d, keys=int8(2, 3, 4, 2, 8), values=int8(2, 3, 4, 2, 8)),
    "scales of another shape": lambda d: attend(
        d,
        keys=int8(2, 3, 4, 2, 8),
        values=int8(2, 3, 4, 2, 8),
        key_scales=zeros(2, 3, 4, 2, 1),
        value_scales=zeros(2, 3, 4, 1, 1),
    ),
    "scales of float32": lambda d: attend(d, key_scales=zeros(2, 3, 4, 2, 1), value_scales=zeros(2, 3, 4, 2, 1)),
    "keys and values of two types": lambda d: attend(d, values=np.zeros((2, 3, 4, 2, 8), np.uint16)),
    "cache of other heads": lambda d: attend(d, keys=zeros(2, 3, 4, 1, 8), values=zeros(2, 3, 4, 1, 8)),
    "values of another shape": lambda d: attend(d, values=zeros(2, 2, 4, 2, 8)),
    "q norm width": lambda d: attend(d, q_norm=zeros(3)),
    "k norm width": lambda d: attend(d, k_norm=zeros(16)),
    "layer past the cache": lambda d: attend(d, layer=2),
    "negative layer": lambda d: attend(d, layer=-1),
    "odd head size": lambda d: attend(
        d,
        q=plain(36, 5),
        k=plain(18, 5),
        v=plain(18, 5),
        angles=zeros(6, 9),
        keys=zeros(2, 3, 4, 2, 9),
        values=zeros(2, 3, 4, 2, 9),
        out=zeros(2, 36),
    ),
    "blocks of nothing": lambda d: plan([(0, 1, 1, 0, [0])], 0),
    "rows with a gap": lambda d: plan([(0, 1, 6, 0, [0, 1]), (2, 3, 6, 0, [0, 1])]),
    "rows backwards": lambda d: plan([(0, 2, 6, 0, [0, 1]), (2, 1, 6, 0, [0, 1])]),
    "first key inside a block": lambda d: plan([(0, 1, 6, 2, [0])]),
    "first key behind the first row": lambda d: plan([(0, 3, 6, 4, [0])]),
    "more rows than context": lambda d: plan([(0, 7, 6, 0, [0, 1])]),
    "block table too short": lambda d: plan([(0, 2, 9, 0, [0, 1])]),
    "negative block": lambda d: plan([(0, 2, 6, 0, [0, -1])]),
    "first key past the context": lambda d: plan([(0, 1, 6, 8, [0])]),
    "a window of less than nothing": lambda d: attend(d, window=-1000),
    "block past the cache": lambda d: attend(d, plan=plan([(0, 2, 6, 0, [0, 3])])),
    "more rows than x": lambda d: attend(d, plan=plan([(0, 3, 6, 0, [0, 1])])),
    "fewer rows than x": lambda d: attend(d, plan=plan([(0, 1, 6, 0, [0, 1])])),
    "another block size": lambda d: attend(d, plan=plan([(0, 2, 6, 0, [0, 1, 2])], 2)),
    "released keys that are seen": lambda d: attend(d, plan=plan([(0, 2, 6, 4, [0])])),
    "released keys that a window sees": lambda d: attend(d, plan=plan([(0, 2, 6, 4, [0])]), window=2),
    "heads no multiple": lambda d: attend(d, q=plain(24, 5), out=zeros(2, 24)),
    "heads in part": lambda d: attend(d, q=plain(33, 5), out=zeros(2, 33)),
    "no kv heads": lambda d: attend(d, keys=zeros(2, 3, 4, 0, 8), values=zeros(2, 3, 4, 0, 8)),
    "output of attention": lambda d: attend(d, out=zeros(1, 32)),
    "parameters for one row too few": lambda d: d.sample(zeros(2, 5), 5, [(1.0, 0, 1.0, 0.5)]),
    "vocabulary past the logits": lambda d: d.sample(zeros(1, 5), 6, [(1.0, 0, 1.0, 0.5)]),
    "no vocabulary": lambda d: d.sample(zeros(1, 5), 0, [(1.0, 0, 1.0, 0.5)]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_of_wrong_shape_or_dtype_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        REFUSED[name](Device(2))


def test_the_arguments_that_the_refused_cases_are_made_from_are_accepted() -> None:
    project(Device(2))
    attend(Device(2))
    attend(Device(2), plan=plan([(0, 2, 6, 4, [0])]), window=1)


WRONG_MEMORY: dict[str, Callable[[Device], object]] = {
    "keys of float64": lambda d: attend(d, keys=np.zeros((2, 3, 4, 2, 8))),
    "values not contiguous": lambda d: attend(d, values=zeros(2, 3, 4, 2, 16)[..., ::2]),
    "keys read-only": lambda d: attend(d, keys=np.broadcast_to(F32(0), (2, 3, 4, 2, 8))),
    "output not contiguous": lambda d: attend(d, out=zeros(32, 2).T),
    "logits of float64": lambda d: d.softcap(np.zeros((2, 4)), 30.0),
    "sum not contiguous": lambda d: project(d, sum=zeros(4, 2).T),
    "normed sum of float64": lambda d: project(d, normed=np.zeros((2, 4))),
    "projection not contiguous": lambda d: d.linears(zeros(2, 4), [plain(5, 4)], None, 0, (zeros(5, 2).T,)),
}


@pytest.mark.parametrize("name", WRONG_MEMORY)
def test_results_are_never_written_to_a_copy(name: str) -> None:
    """The binding library makes one to fit where it may, and the caller would see nothing of the result."""
    with pytest.raises(TypeError):
        WRONG_MEMORY[name](Device(1))


small = st.integers(0, 5)


@pytest.mark.parametrize("isa", KERNELS)
@drawn_cases(75)
@given(data=st.data())
def test_arguments_of_any_shape_are_computed_or_refused(isa: str, data: st.DataObject) -> None:
    device = Device(2, isa)

    def array(dims: int, dtype: Any = F32) -> Any:
        shape = data.draw(st.lists(small, min_size=dims, max_size=dims))
        return np.full(shape, data.draw(st.integers(-2, 6)), dtype)

    calls: dict[str, Callable[[], object]] = {
        "linears": lambda: device.linears(
            array(2),
            [plain(data.draw(small) + 1, data.draw(small) + 1)],
            LoraPlan([(data.draw(small), data.draw(small), adapter((array(2), array(2), array(1))), 1.0)]),
            data.draw(st.integers(-1, 1)),
            (array(2),),
        ),
        "embed": lambda: device.embed(plain(3, 4), array(1, np.int32), 1.0, None, 0, array(2)),
        "rms_norm": lambda: device.rms_norm(array(2), array(1), 1e-6, None, 0, array(2)),
        "add_projection": lambda: project(
            device,
            **{name: array(2) for name in ("x", "y", "sum", "normed") if data.draw(st.booleans())},
            **{name: array(1) for name in ("post", "weight") if data.draw(st.booleans())},
        ),
        "gated_linear": lambda: device.gated_linear(
            array(2),
            plain(data.draw(small) + 1, data.draw(small) + 1),
            plain(data.draw(small) + 1, data.draw(small) + 1),
            None,
            0,
            array(2),
        ),
        "softcap": lambda: device.softcap(array(2), 30.0),
        "self_attention": lambda: attend(
            device,
            plan=plan(
                [
                    (data.draw(small), data.draw(small), data.draw(st.integers(-1, 12)), data.draw(small), table)
                    for table in data.draw(st.lists(st.lists(st.integers(-1, 4), max_size=4), max_size=2))
                ],
                data.draw(st.integers(-1, 4)),
            ),
            window=data.draw(st.integers(0, 4)),
            layer=data.draw(st.integers(-1, 3)),
            **{
                name: array(5, data.draw(st.sampled_from([F32, np.uint16, np.int8])))
                for name in ("keys", "values")
                if data.draw(st.booleans())
            },
            **{name: array(5) for name in ("key_scales", "value_scales") if data.draw(st.booleans())},
            **{name: array(2) for name in ("x", "angles", "out") if data.draw(st.booleans())},
            **{name: array(1) for name in ("q_norm", "k_norm") if data.draw(st.booleans())},
            **{name: plain(8 * data.draw(small) + 8, 5) for name in ("q", "k", "v") if data.draw(st.booleans())},
        ),
        "sample": lambda: device.sample(
            array(2),
            data.draw(small),
            data.draw(
                st.lists(
                    st.tuples(
                        st.floats(0, 5),
                        st.integers(-2, 9),
                        st.floats(0, 1),
                        st.floats(0, 1, exclude_max=True),
                    ),
                    max_size=3,
                )
            ),
        ),
    }
    with contextlib.suppress(ValueError, TypeError):  # refused: as good as computed
        calls[data.draw(st.sampled_from(sorted(calls)))]()
