"""A packed adapter is the checked one: bit for bit in float32, within 2^-10 in float16, and never a damaged one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intaglio.lora import packed as packed_module
from intaglio.lora.adapter import LoraAdapter, digest_of
from intaglio.lora.packed import AdapterDtype, PackedAdapters, pack_adapter
from intaglio.lora.peft import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from intaglio.ops import LoraPair

HALF_STEP = 2.0**-11  # of eleven bits, relative
TINIEST = 2.0**-25  # half of float16's smallest step, beside a largest value of 1


@pytest.fixture
def adapter(folder: Path, base: ModelConfig) -> LoraAdapter:
    return read_peft_adapter(folder, base, AdapterLimits())


def random_pair(seed: int, a_size: float, b_size: float) -> LoraPair:
    random = np.random.default_rng(seed)
    a = random.normal(0, a_size, (3, 133)).astype(np.float32)
    return LoraPair(a, random.normal(0, b_size, (7, 3)).astype(np.float32))


def one_module(pair: LoraPair) -> LoraAdapter:
    return LoraAdapter.from_pairs({(0, "self_attn.q_proj"): pair})


def delta(pair: LoraPair) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What the pair adds to a weight, [out, in], without rounding."""
    result: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (
        pair.b.astype(np.float64) * np.asarray(pair.scale, np.float64)
    ) @ pair.a.astype(np.float64)
    return result


def assert_same(left: LoraAdapter, right: LoraAdapter) -> None:
    assert (left.digest, left.rank, list(left.pairs)) == (right.digest, right.rank, list(right.pairs))
    for key, pair in left.pairs.items():
        other = right.pairs[key]
        assert np.array_equal(np.broadcast_to(pair.scale, left.rank), np.broadcast_to(other.scale, left.rank))
        for one, two in ((pair.a, other.a), (pair.b, other.b)):
            assert one.dtype == two.dtype
            np.testing.assert_array_equal(one, two)


# -- the numbers


def test_beside_exact_weights_an_adapter_stays_exact_float32(adapter: LoraAdapter) -> None:
    packed = pack_adapter(adapter, "float32")
    assert_same(packed, adapter)
    assert {pair.scale for pair in packed.pairs.values()} == {1.0}
    assert digest_of(packed.pairs) == adapter.digest


sizes = st.integers(-60, 30).map(lambda exponent: 2.0**exponent)


@given(seed=st.integers(0, 1000), a_size=sizes, b_size=sizes)
def test_float16_changes_a_delta_by_a_thousandth_of_its_terms_at_most(seed: int, a_size: float, b_size: float) -> None:
    pair = random_pair(seed, a_size, b_size)
    packed = pack_adapter(one_module(pair), "float16").pairs[0, "self_attn.q_proj"]
    a, b = np.abs(pair.a).astype(np.float64), np.abs(pair.b).astype(np.float64)
    # each value errs by half a step of its own, or of the smallest numbers beside the largest, now 0.5 to 1
    a_error = np.maximum(HALF_STEP * a, TINIEST * 2 * a.max())
    b_error = np.maximum(HALF_STEP * b, TINIEST * 2 * b.max())
    bound = b_error @ a + (b + b_error) @ a_error
    assert (np.abs(delta(packed) - delta(pair)) <= bound).all()
    terms = b @ a
    assert np.abs(delta(packed) - delta(pair)).max() <= 2.0**-10 * terms.max()


def test_a_young_adapter_with_a_tiny_b_loses_nothing_to_float16() -> None:
    """Its values lie below everything that float16 could hold as they are."""
    pair = random_pair(1, 0.05, 1e-9)
    assert not pair.b.astype(np.float16).any()
    packed = pack_adapter(one_module(pair), "float16").pairs[0, "self_attn.q_proj"]
    assert 0.5 <= np.abs(packed.b).max() <= 1
    assert 0.5 <= np.abs(packed.a).max() <= 1
    np.testing.assert_allclose(delta(packed), delta(pair), rtol=0, atol=2.0**-10 * np.abs(delta(pair)).max())


@given(seed=st.integers(0, 1000), a_size=sizes, b_size=sizes)
def test_int8_is_off_by_half_a_step_of_its_row_at_most(seed: int, a_size: float, b_size: float) -> None:
    pair = random_pair(seed, a_size, b_size)
    packed = pack_adapter(one_module(pair), "int8").pairs[0, "self_attn.q_proj"]
    assert packed.a.dtype == packed.b.dtype == np.int8
    assert np.abs(packed.a).max(axis=1).tolist() == np.abs(packed.b).max(axis=0).tolist() == [127] * 3
    a, b = np.abs(pair.a).astype(np.float64), np.abs(pair.b).astype(np.float64)
    half_step = (0.5 + 1e-4) / 127  # and a little for the scales, which are float32
    a_error = np.broadcast_to(half_step * a.max(axis=1, keepdims=True), a.shape)
    b_error = np.broadcast_to(half_step * b.max(axis=0, keepdims=True), b.shape)
    assert (np.abs(delta(packed) - delta(pair)) <= b_error @ a + (b + b_error) @ a_error).all()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_an_untrained_b_of_zeros_stays_zero(dtype: AdapterDtype) -> None:
    pair = LoraPair(random_pair(2, 1, 1).a, np.zeros((7, 3), np.float32))
    packed = pack_adapter(one_module(pair), dtype).pairs[0, "self_attn.q_proj"]
    assert not delta(packed).any()


@pytest.mark.parametrize("size", [1e-38, 1e-42])
def test_a_rank_too_small_for_a_scale_is_none(size: float) -> None:
    """Its delta is nothing beside any weight; it must not become a number that is none."""
    pair = LoraPair(np.full((1, 5), size, np.float32), np.ones((7, 1), np.float32))
    packed = pack_adapter(one_module(pair), "int8").pairs[0, "self_attn.q_proj"]
    assert np.isfinite(delta(packed)).all()
    np.testing.assert_allclose(delta(packed), delta(pair), rtol=0.01, atol=1e-38)


# -- the file


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_what_was_kept_is_read_back_ready_for_the_kernels(
    adapter: LoraAdapter, tmp_path: Path, dtype: AdapterDtype
) -> None:
    store = PackedAdapters(tmp_path, dtype)
    kept = store.keep(adapter)
    read = PackedAdapters(tmp_path, dtype).read(adapter.digest)
    assert read is not None
    assert_same(read, kept)
    assert kept.nbytes == read.nbytes == adapter.nbytes * np.dtype(dtype).itemsize // 4
    for made in (kept, read):
        assert all(pair.a.flags.c_contiguous and pair.b.T.flags.c_contiguous for pair in made.pairs.values())


def test_a_good_file_is_not_written_again(adapter: LoraAdapter, tmp_path: Path) -> None:
    store = PackedAdapters(tmp_path / "packed", "float16")
    kept = store.keep(adapter)
    (path,) = (tmp_path / "packed").iterdir()
    inode = path.stat().st_ino
    assert_same(store.keep(adapter), kept)
    assert path.stat().st_ino == inode


def test_each_type_and_each_adapter_has_a_file_of_its_own(adapter: LoraAdapter, tmp_path: Path) -> None:
    PackedAdapters(tmp_path, "float32").keep(adapter)
    assert PackedAdapters(tmp_path, "float16").read(adapter.digest) is None
    assert PackedAdapters(tmp_path, "float32").read(adapter.digest[:32] + "0" * 32) is None


@given(position=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_file_with_any_byte_changed_is_never_trusted(
    position: int, flip: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("packed")
    store, adapter = PackedAdapters(folder, "float16"), one_module(random_pair(3, 1, 1))
    kept = store.keep(adapter)
    (path,) = folder.iterdir()
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= flip
    path.write_bytes(bytes(data))
    read = store.read(adapter.digest)
    if read is not None:
        assert_same(read, kept)


@pytest.mark.parametrize("kept_bytes", [0, 7, 100, 5000])
def test_a_truncated_file_counts_as_not_there(adapter: LoraAdapter, tmp_path: Path, kept_bytes: int) -> None:
    store = PackedAdapters(tmp_path / "packed", "float32")
    store.keep(adapter)
    (path,) = (tmp_path / "packed").iterdir()
    path.write_bytes(path.read_bytes()[:kept_bytes])
    assert store.read(adapter.digest) is None


def test_a_file_of_another_version_counts_as_not_there(
    adapter: LoraAdapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PackedAdapters(tmp_path, "float32")
    store.keep(adapter)
    monkeypatch.setattr(packed_module, "VERSION", packed_module.VERSION + 1)
    assert store.read(adapter.digest) is None


def test_a_folder_that_cannot_be_written_to_costs_a_warning_and_no_more(
    adapter: LoraAdapter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    kept = PackedAdapters(tmp_path / "file" / "packed", "float32").keep(adapter)
    assert_same(kept, adapter)
    assert "could not be kept" in caplog.text


def test_what_nobody_read_for_a_month_is_removed_and_nothing_else(tmp_path: Path) -> None:
    store = PackedAdapters(tmp_path, "float32")
    forgotten, used = one_module(random_pair(4, 1, 1)), one_module(random_pair(5, 1, 1))
    store.keep(forgotten)
    store.keep(used)
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    assert store.read(used.digest) is not None
    unfinished, neighbour = tmp_path / ".packing-abc", tmp_path / "notes.txt"
    for path in (unfinished, neighbour):
        path.write_text("x")
        os.utime(path, (1, 1))
    assert store.sweep() == 2
    assert store.read(used.digest) is not None
    assert store.read(forgotten.digest) is None
    assert (unfinished.exists(), neighbour.exists()) == (False, True)
    assert PackedAdapters(tmp_path / "nowhere", "float32").sweep() == 0
