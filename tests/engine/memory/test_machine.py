from __future__ import annotations

import re
from pathlib import Path

import pytest

from intaglio import LLM
from intaglio.engine.memory.available import AvailableMemory
from intaglio.engine.memory.machine import kv_format, plan_for_machine
from intaglio.errors import ModelFormatError, NotEnoughMemoryError, SettingsError
from intaglio.model.loader import load_gemma
from intaglio.ops.cpu import instruction_sets
from intaglio.settings import Settings, load_settings
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.engines import write_tiny_model
from tests.helpers.kernels import chosen_ops

MB = 10**6


def memory(size_mb: int) -> AvailableMemory:
    return AvailableMemory(size_mb * MB, "memory of a test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


def write_long_model(folder: Path) -> Path:
    """A model with a context of a million tokens, without sliding layers."""
    config = tiny_config("gemma", max_position_embeddings=10**6)
    return write_hf_folder(folder, config, random_weights(config, 0))


def test_the_settings_of_a_model_have_the_sizes_of_its_caches(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path)
    planned = plan_for_machine([path], settings, memory(4000)).of_model(0)
    assert planned.kv_cache_bytes is not None
    assert planned.model_copy(update={"kv_cache_bytes": None}) == settings


def test_the_table_says_what_is_used_and_how_long_a_sequence_can_be(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, kv_format="int8", kv_cache_bytes=10 * MB)
    plan = plan_for_machine([path, path], settings, memory(4000))
    lines = plan.table(["@cf/first", "@cf/second"]).splitlines()
    assert lines[0] == "memory in MB, when every cache is full:"
    assert [line.split()[0] for line in lines[1:]] == [
        *("@cf/first", "weights", "KV", "adapter", "working"),
        *("@cf/second", "weights", "KV", "adapter", "working"),
        "left",
    ]
    kv_row = next(line for line in lines if "KV cache" in line)
    assert re.search(r" 10  [\d,]+ tokens in int8; longest sequence \d+, as the model has$", kv_row)
    used = sum(int(line.split()[-1].replace(",", "")) for line in lines if line.startswith("  @cf/"))
    free = re.search(r"left free +([\d,]+)  of 4,000: memory of a test", lines[-1])
    assert free is not None
    assert used + int(free[1].replace(",", "")) == pytest.approx(4000, abs=2)


def test_the_table_says_when_memory_is_too_short_for_the_whole_window(path: Path, tmp_path: Path) -> None:
    large = write_long_model(tmp_path / "long")
    settings = load_settings(cache_dir=tmp_path, kv_cache_bytes=MB)
    table = plan_for_machine([large], settings, memory(4000)).table(["large"])
    assert re.search(r"longest sequence [\d,]+, fewer than 1,000,000 because memory is short", table)


@pytest.mark.parametrize(
    ("weights", "is_quantized", "expected"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "f32"),
        ("w4", False, "bf16"),
        ("f32", True, "f32"),
        ("bf16", True, "f32"),
    ],
)
def test_keys_and_values_are_bfloat16_beside_quantized_weights(weights: str, is_quantized: bool, expected: str) -> None:
    assert kv_format(load_settings(format=weights), is_quantized) == expected
    assert kv_format(load_settings(format=weights, kv_format="int8"), is_quantized) == "int8"


def test_a_context_window_that_was_set_is_held_in_full(path: Path, tmp_path: Path) -> None:
    large = write_long_model(tmp_path / "long")
    settings = load_settings(cache_dir=tmp_path, context_window=200_000)
    with pytest.raises(NotEnoughMemoryError, match="Use a smaller context_window"):
        plan_for_machine([large], settings, memory(350))
    assert "longest sequence 200,000, as set" in plan_for_machine([large], settings, memory(1000)).table(["large"])


def test_every_model_counts(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, kv_cache_bytes=400 * MB, adapter_cache_bytes=100 * MB)
    assert plan_for_machine([path], settings, memory(1000)).of_model(0) == settings
    with pytest.raises(NotEnoughMemoryError, match="of 2 models"):
        plan_for_machine([path, path], settings, memory(1000))


def test_a_second_start_needs_less_than_the_one_that_packs(path: Path, tmp_path: Path) -> None:
    settings = load_settings(cache_dir=tmp_path, format="w8", kv_cache_bytes=1 << 16, adapter_cache_bytes=1 << 16)
    tight = AvailableMemory(least_that_fits(path, settings), "memory of a test")
    load_gemma(path, chosen_ops(1), "w8", packed_dir=tmp_path / "packed")
    less = AvailableMemory(tight.size_bytes - 100_000, tight.bound)
    assert plan_for_machine([path], settings, less).of_model(0) == settings


def least_that_fits(path: Path, settings: Settings) -> int:
    """Bytes, found by halving."""
    low, high = 0, 4000 * MB
    while high - low > 1:
        middle = (low + high) // 2
        try:
            plan_for_machine([path], settings, AvailableMemory(middle, "memory of a test"))
            high = middle
        except NotEnoughMemoryError:
            low = middle
    return high


@pytest.mark.parametrize("kernels", sorted({"avx512vnni", "avx2", "neon"} - set(instruction_sets())))
def test_kernels_that_this_machine_lacks_are_refused_with_those_it_has(path: Path, kernels: str) -> None:
    with pytest.raises(SettingsError, match=f"'kernels'.*{kernels}.*this machine has .*plain"):
        plan_for_machine([path], load_settings(kernels=kernels))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match="nowhere"):
        plan_for_machine([tmp_path / "nowhere"], load_settings())


def test_an_llm_is_refused_before_its_model_is_loaded(path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"KV cache 9,000,000,000 MB \(kv_cache_bytes\)"):
        LLM(path, cache_dir=tmp_path, kv_cache_bytes=9 * 10**15)
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("threads", [0, -1, 10_000, "two"])
def test_an_llm_takes_1_to_256_threads(path: Path, threads: object) -> None:
    with pytest.raises(SettingsError, match=f"'threads' is {threads!r}.* 1 to 256"):
        LLM(path, threads=threads)
