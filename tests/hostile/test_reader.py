"""Every case given to the reader: refused with the reason, in little time and memory, or read exactly."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from intaglio.errors import AdapterError
from intaglio.lora.peft.reader import AdapterLimits, check_config_file, check_weights_file, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.hostile.case import CONFIG, WEIGHTS, HostileCase, ValidCase
from tests.hostile.corpus import HOSTILE, VALID, all_cases
from tests.hostile.good_adapter import Files, tensors_of

CPU_SECONDS = 3.0  # of the thread, so that other load on the machine does not count
# Enough for Python's objects for a header of two megabytes; a claim of terabytes must not allocate more.
PEAK_BYTES = 40_000_000
FALSE_SIZES = [
    case for case in HOSTILE if re.search("terabytes|length of|overflow|bomb|metadata|nested|digits", case.name)
]
MAX_MESSAGE_CHARS = 2000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapter")


def write(folder: Path, files: Files) -> None:
    (folder / CONFIG).write_bytes(files.config)
    (folder / WEIGHTS).write_bytes(files.weights)


def refusal(read: Callable[[], object]) -> str:
    """The message of the AdapterError that `read` raises within CPU_SECONDS. Any other exception fails the test."""
    began = time.thread_time()
    with pytest.raises(AdapterError) as refused:
        read()
    assert time.thread_time() - began < CPU_SECONDS
    assert len(str(refused.value)) < MAX_MESSAGE_CHARS
    assert str(refused.value).isprintable(), "a log and a terminal show it as it is"
    return str(refused.value)


def peak_bytes(read: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(AdapterError):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", all_cases(HOSTILE))
def test_a_hostile_adapter_is_refused_with_the_reason(
    folder: Path, base: ModelConfig, good: Files, case: HostileCase
) -> None:
    write(folder, case.make(good))
    message = refusal(lambda: read_peft_adapter(folder, base, AdapterLimits()))
    assert re.search(case.complaint, message), message
    assert CONFIG in message or WEIGHTS in message, "it names the file"
    check = check_config_file if case.bad == CONFIG else check_weights_file
    if case.alone:
        alone = refusal(lambda: check(folder / case.bad, AdapterLimits()))
        assert re.search(case.complaint, alone), alone
    else:
        check(folder / case.bad, AdapterLimits())


@pytest.mark.parametrize("case", all_cases(FALSE_SIZES))
def test_a_header_that_claims_terabytes_allocates_no_memory(
    folder: Path, base: ModelConfig, good: Files, case: HostileCase
) -> None:
    write(folder, case.make(good))
    assert peak_bytes(lambda: read_peft_adapter(folder, base, AdapterLimits())) < PEAK_BYTES


@pytest.mark.parametrize("case", VALID, ids=[case.name for case in VALID])
def test_an_unusual_valid_adapter_is_read_exactly(
    folder: Path, base: ModelConfig, good: Files, case: ValidCase
) -> None:
    files = case.make(good)
    write(folder, files)
    check_config_file(folder / CONFIG, AdapterLimits())
    check_weights_file(folder / WEIGHTS, AdapterLimits())
    adapter = read_peft_adapter(folder, base, AdapterLimits())
    tensors = tensors_of(files.weights)
    assert 2 * len(adapter.pairs) == len(tensors), "every tensor is used"
    for name, values in tensors.items():
        path, _, half = name.replace(".default", "").removesuffix(".weight").rpartition(".lora_")
        _, _, place = path.rpartition("layers.")
        layer, _, projection = place.partition(".")
        pair = adapter.pairs[int(layer), projection]
        if half == "A":
            np.testing.assert_array_equal(pair.a, values.astype(np.float32))
        else:
            factor = case.expected(f"model.layers.{place}")
            np.testing.assert_allclose(pair.b, values.astype(np.float32) * np.float32(factor), rtol=1e-6)


def test_case_names_are_unique() -> None:
    names = [case.name for case in (*HOSTILE, *VALID)]
    assert len(names) == len(set(names))
