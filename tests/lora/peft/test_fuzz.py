"""Whatever two files hold, reading them gives an adapter or an AdapterError, soon and in little memory."""

from __future__ import annotations

import json
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from intaglio.errors import AdapterError
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE, AdapterLimits, read_peft_adapter
from intaglio.model.config import ModelConfig
from tests.golden.cases import WHOLE, adapter_folder
from tests.helpers.adapters import peft_config, write_peft_adapter

Files = tuple[bytes, bytes]  # config, weights

# The good adapter takes 0.2 MB with its copies; a header that lies must not take more than a full one would.
PEAK_BYTES = 4_000_000

numbers = (
    st.integers() | st.floats(allow_nan=False) | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0])
)
scalars = (
    st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(["(a|a)*b", "all-linear", "(", "LORA"])
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def goods(tmp_path_factory: pytest.TempPathFactory, base: ModelConfig) -> list[Files]:
    """One of projections alone, and stored ones with DoRA, biases, an embedding, a head and token rows."""
    plain = write_peft_adapter(tmp_path_factory.mktemp("good"), base, rank_pattern={"q_proj": 2}, layers=[0, 2])
    folders = [plain, *(adapter_folder("gemma", name) for name in WHOLE["gemma"])]
    return [((folder / CONFIG_FILE).read_bytes().strip(), (folder / WEIGHTS_FILE).read_bytes()) for folder in folders]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def read_or_refuse(scratch: Path, base: ModelConfig, config: bytes, weights: bytes) -> bool:
    """Whether the files were read. Any exception but AdapterError, and any great use of memory, fails the test."""
    (scratch / CONFIG_FILE).write_bytes(config)
    (scratch / WEIGHTS_FILE).write_bytes(weights)
    tracemalloc.start()
    try:
        read_peft_adapter(scratch, base, AdapterLimits())
        return True
    except AdapterError as refusal:
        assert str(refusal).encode() and len(str(refusal)) < 2000
        return False
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < PEAK_BYTES


def test_the_good_adapters_are_read(scratch: Path, base: ModelConfig, goods: list[Files]) -> None:
    assert all(read_or_refuse(scratch, base, *good) for good in goods)


@settings(deadline=None)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(scratch: Path, base: ModelConfig, goods: list[Files], data: Any) -> None:
    config, weights = map(bytearray, data.draw(st.sampled_from(goods)))
    header_end = 8 + struct.unpack("<Q", weights[:8])[0]
    for _ in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            config[data.draw(st.integers(0, len(config) - 1))] = data.draw(st.integers(0, 255))
        else:  # the header more often than the many values
            index = data.draw(st.integers(0, header_end - 1) | st.integers(0, len(weights) - 1))
            weights[index] = data.draw(st.integers(0, 255))
    read_or_refuse(scratch, base, bytes(config), bytes(weights))


@settings(deadline=None)
@given(
    index=st.integers(0, 3),
    changes=st.dictionaries(st.sampled_from(sorted(peft_config())) | st.text(max_size=8), json_values, max_size=3),
)
@example(index=0, changes={"rank_pattern": {"(.*)*(.*)*": 2, "q_proj": 2}})
@example(index=1, changes={"target_modules": "(?:(?:.{0,9}){0,9}){0,9}"})
def test_any_setting_is_read_or_refused(
    scratch: Path, base: ModelConfig, goods: list[Files], index: int, changes: dict[str, Any]
) -> None:
    config, weights = goods[index]
    read_or_refuse(scratch, base, json.dumps(json.loads(config) | changes).encode(), weights)


@settings(deadline=None)
@given(data=st.data())
def test_any_header_is_read_or_refused(scratch: Path, base: ModelConfig, goods: list[Files], data: Any) -> None:
    config, weights = data.draw(st.sampled_from(goods))
    length = struct.unpack("<Q", weights[:8])[0]
    header = json.loads(weights[8 : 8 + length])
    name = data.draw(st.sampled_from(sorted(header)))
    match data.draw(st.sampled_from(["value", "field", "rename", "swap"])):
        case "value":
            header[name] = data.draw(json_values)
        case "field":
            field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "other"]))
            sizes = st.lists(st.integers(-1, 2**64), max_size=3)
            header[name] = header[name] | {field: data.draw(json_values | sizes)}
        case "rename":
            header[data.draw(st.text(max_size=20))] = header.pop(name)
        case "swap":
            other = data.draw(st.sampled_from(sorted(header)))
            header[name], header[other] = header[other], header[name]
    text = json.dumps(header).encode()
    read_or_refuse(scratch, base, config, struct.pack("<Q", len(text)) + text + weights[8 + length :])
