"""Files with every kind of tensor, damaged at random: refused, or read with exactly the values they now have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from intaglio.errors import AdapterError
from intaglio.lora.adapter import LoraAdapter
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.helpers.drawn_cases import drawn_cases
from tests.hostile.all_tensor_kinds import adapter_with, check_equals_file, small_base
from tests.hostile.case import CONFIG, WEIGHTS
from tests.hostile.good_adapter import Files, join_file, split_file

MUTATED = drawn_cases(30)


@pytest.fixture(scope="module")
def base() -> ModelConfig:
    return small_base()


@pytest.fixture(scope="module", params=["bias", "magnitude"])
def good(request: pytest.FixtureRequest, base: ModelConfig) -> Files:
    return adapter_with(request.param, base)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def read(scratch: Path, base: ModelConfig, files: Files) -> LoraAdapter | None:
    """The adapter, whose values must be those of its file; None if it is refused."""
    (scratch / CONFIG).write_bytes(files.config)
    (scratch / WEIGHTS).write_bytes(files.weights)
    try:
        adapter = read_peft_adapter(scratch, base, AdapterLimits())
    except AdapterError as refusal:
        assert CONFIG in str(refusal) or WEIGHTS in str(refusal)
        return None
    try:
        check_equals_file(adapter, files.weights)
    except SafetensorError as error:
        raise AssertionError(f"read here, but the official reader says {error}") from error
    return adapter


def test_the_good_files_are_read(scratch: Path, base: ModelConfig, good: Files) -> None:
    assert read(scratch, base, good) is not None


@MUTATED
@given(data=st.data())
def test_files_with_flipped_bits_are_refused_or_read_exactly(
    scratch: Path, base: ModelConfig, good: Files, data: Any
) -> None:
    spoiled = bytearray(good.weights)
    header_bytes = len(spoiled) - len(split_file(good.weights)[1])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, header_bytes - 1) | st.integers(0, len(spoiled) - 1))
        spoiled[place] ^= 1 << data.draw(st.integers(0, 7))
    read(scratch, base, good._replace(weights=bytes(spoiled)))


@MUTATED
@given(data=st.data())
def test_files_cut_or_with_a_hole_or_extra_bytes_are_refused(
    scratch: Path, base: ModelConfig, good: Files, data: Any
) -> None:
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(good.weights))] * 2)))
    filled = [b"", b"\x00", good.weights[first:last] * 2][data.draw(st.integers(0, 2))]
    spoiled = good.weights[:first] + filled + good.weights[last:]
    if spoiled != good.weights:
        assert read(scratch, base, good._replace(weights=spoiled)) is None


@MUTATED
@given(data=st.data())
def test_files_with_an_edited_header_are_refused_or_read_exactly(
    scratch: Path, base: ModelConfig, good: Files, data: Any
) -> None:
    """Swapped tensors of the same shape cannot be noticed, but they must be read as swapped."""
    header, content = split_file(good.weights)
    names = sorted(name for name in header if name != "__metadata__")
    name, other = data.draw(st.sampled_from(names)), data.draw(st.sampled_from(names))
    match data.draw(st.sampled_from(["leave out", "rename", "exchange", "number", "kind", "twice"])):
        case "leave out":
            header.pop(name)
        case "rename":
            words = data.draw(
                st.sampled_from(
                    [
                        ("lora_A", "lora_B"),
                        ("bias", "weight"),
                        ("layers.0", "layers.1"),
                        ("norm", "q_norm"),
                        ("embed_tokens", "lm_head"),
                        ("token_adapter", "x"),
                        (".weight", ""),
                    ]
                )
            )
            header[name.replace(*words)] = header.pop(name)
        case "exchange":
            header[name], header[other] = header[other], header[name]
        case "number":
            field = data.draw(st.sampled_from(["shape", "data_offsets"]))
            values = header[name][field]
            values[data.draw(st.integers(0, len(values) - 1))] += data.draw(st.integers(-5, 5))
        case "kind":
            header[name]["dtype"] = data.draw(st.sampled_from(["F16", "BF16", "F64", "I32"]))
        case "twice":
            header["module." + name] = header[other]
    read(scratch, base, good._replace(weights=join_file(header, content)))


@MUTATED
@given(data=st.data())
def test_files_with_an_edited_config_are_refused_or_read_exactly(
    scratch: Path, base: ModelConfig, good: Files, data: Any
) -> None:
    """Edits the keys that change the meaning of the tensors; `configs.py` has wrong values of the other keys."""
    config = json.loads(good.config)
    keys = (
        "target_modules",
        "modules_to_save",
        "trainable_token_indices",
        "use_dora",
        "lora_bias",
        "r",
        "layers_to_transform",
        "exclude_modules",
    )
    key = data.draw(st.sampled_from(keys))
    before = config[key]
    config[key] = data.draw(
        st.sampled_from([None, True, False, 0, 3, 8, [], [9], [2, 9], ["norm"], ["q_proj"], ["lm_head"], "x", {}])
    )
    spoiled = good._replace(config=json.dumps(config).encode())
    adapter = read(scratch, base, spoiled)
    if adapter is not None and config[key] != before:
        expected = read(scratch, base, good)
        assert expected is not None
        assert adapter.digest == expected.digest, f"{key} was {before}"
