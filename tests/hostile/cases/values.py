"""Values that no training produces, and unusual ones that are valid."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.hostile.case import HostileCase, ValidCase, bad_config, bad_weights
from tests.hostile.good_adapter import ALPHA, DTYPES, RANK, A, B, Files, Tensors, with_tensors

NOT_FINITE = "lora_.* holds values that are NaN or infinite"

# Bits that are NaN or infinite, quiet and signalling, of either sign.
BITS = {
    "F32": (0x7FC00000, 0xFF800001, 0x7F800000, 0xFF800000),
    "F16": (0x7E00, 0xFC00),
    "BF16": (0x7F81, 0xFF80),
}


def with_bits(dtype: str, bits: int, name: str, index: int) -> Any:
    """The good adapter in another dtype, with `bits` as one value of one tensor."""

    def spoil(tensors: Tensors) -> None:
        for each in tensors:
            tensors[each] = tensors[each].astype(DTYPES[dtype])
        words = tensors[name].view(np.uint32 if dtype == "F32" else np.uint16)
        words.reshape(-1)[index] = bits

    return with_tensors(spoil)


def filled(value: float, dtype: str = "F32") -> Any:
    """The good adapter with every B filled with one value."""

    def fill(tensors: Tensors) -> None:
        for name, old in tensors.items():
            if "lora_B" in name:
                tensors[name] = np.full(old.shape, value, DTYPES[dtype])

    return with_tensors(fill)


def valid(name: str, value: float, dtype: str = "F32") -> ValidCase:
    return ValidCase(
        name, lambda good: Files(good.config, filled(value, dtype)(good.weights)), lambda _path: ALPHA / RANK
    )


CASES: tuple[HostileCase, ...] = (
    *(
        bad_weights(f"{dtype} {bits:#x}", NOT_FINITE, with_bits(dtype, bits, A, 0))
        for dtype in BITS
        for bits in BITS[dtype]
    ),
    *(
        bad_weights(f"NaN in {name.split('.')[-2]} at {index}", NOT_FINITE, with_bits("F32", 0x7FC00000, name, index))
        for name, index in ((A, 77), (B, -1))
    ),
    bad_weights(
        "the largest float32 and a scaling", "scaling of model.layers.0.*beyond float32", filled(3e38), alone=False
    ),
    bad_config(
        "an alpha beyond float32",
        "scaling of model.layers.0.*is 2.5e\\+299.*beyond float32",
        lora_alpha=1e300,
        alone=False,
    ),
    bad_config(
        "an alpha pattern beyond float32",
        "scaling of model.layers.2.*beyond float32",
        alpha_pattern={"layers.2.self_attn.q_proj": 1e300},
        alone=False,
    ),
    bad_config("a negative alpha beyond float32", "beyond float32", lora_alpha=-1e300, alone=False),
)

VALID: tuple[ValidCase, ...] = (
    valid("subnormal float32", 1e-44),
    valid("subnormal float16", 6e-8, "F16"),
    valid("subnormal bfloat16", 1e-40, "BF16"),
    valid("the largest float16", 65504.0, "F16"),
    valid("the largest bfloat16 that the scaling leaves finite", 1.5e38, "BF16"),
)
