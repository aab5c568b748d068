from __future__ import annotations

from pathlib import Path

import pytest

from intaglio import LLM
from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.machine import fit_to_machine
from intaglio.errors import ModelFormatError, NotEnoughMemoryError, SettingsError
from intaglio.model.loader import load_gemma
from intaglio.ops.cpu import instruction_sets
from intaglio.settings import Settings, load_settings
from tests.helpers.engines import write_tiny_model
from tests.helpers.kernels import chosen_ops

MB = 10**6


def memory(size_mb: int) -> AvailableMemory:
    return AvailableMemory(size_mb * MB, "memory of a test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


def test_a_model_that_fits_leaves_the_settings_as_they_are(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path)
    assert fit_to_machine([path], settings, memory(4000)) == settings


def test_every_model_counts(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, kv_cache_bytes=400 * MB, adapter_cache_bytes=100 * MB)
    assert fit_to_machine([path], settings, memory(1000)) == settings
    with pytest.raises(NotEnoughMemoryError, match="of 2 models"):
        fit_to_machine([path, path], settings, memory(1000))


def test_a_second_start_needs_less_than_the_one_that_packs(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, format="w8", kv_cache_bytes=1 << 16, adapter_cache_bytes=1 << 16)
    tight = AvailableMemory(least_that_fits(path, settings), "memory of a test")
    load_gemma(path, chosen_ops(1), "w8", packed_dir=tmp_path / "packed")
    less = AvailableMemory(tight.size_bytes - 100_000, tight.bound)
    assert fit_to_machine([path], settings, less) == settings


def least_that_fits(path: Path, settings: Settings) -> int:
    """Bytes, found by halving."""
    low, high = 0, 4000 * MB
    while high - low > 1:
        middle = (low + high) // 2
        try:
            fit_to_machine([path], settings, AvailableMemory(middle, "memory of a test"))
            high = middle
        except NotEnoughMemoryError:
            low = middle
    return high


@pytest.mark.parametrize("kernels", sorted({"avx512vnni", "avx2", "neon"} - set(instruction_sets())))
def test_kernels_that_this_machine_lacks_are_refused_with_those_it_has(path: Path, kernels: str) -> None:
    with pytest.raises(SettingsError, match=f"'kernels'.*{kernels}.*this machine has .*plain"):
        fit_to_machine([path], load_settings(kernels=kernels))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="nowhere"):
        fit_to_machine([tmp_path / "nowhere"], load_settings())


def test_an_llm_is_refused_before_its_model_is_loaded(path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"KV cache 9,000,000,000 MB \(kv_cache_bytes\)"):
        LLM(path, cache_dir=tmp_path, kv_cache_bytes=9 * 10**15)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("threads", [0, -1, 10_000, "two"])
def test_an_llm_takes_1_to_256_threads(path: Path, threads: object) -> None:
    with pytest.raises(SettingsError, match=f"'threads' is {threads!r}.* 1 to 256"):
        LLM(path, threads=threads)
