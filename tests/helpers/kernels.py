"""Which implementation of the array operations the tests compute with: `pytest --kernels NAME`.

auto       the best instruction set of this machine, and NumPy beside it where an operation is tested on its own
NAME       that instruction set alone, in the tests' own process and in every server they start
reference  the NumPy backend alone

`make test-kernels` runs the numeric suites once for each of them, so one machine also finds faults of instruction
sets that other machines use.
"""

from __future__ import annotations

import math
import os
from typing import Literal, cast

import pytest

from intaglio.engine.core_process import make_ops
from intaglio.model.quantize import WeightFormat
from intaglio.ops import Ops
from intaglio.ops._cpu import instruction_sets
from intaglio.ops.cpu import CpuOps
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import Kernels

KERNELS_VARIABLE = "INTAGLIO_KERNELS"  # the variable of the setting: servers and engines that tests start use it too

CHOSEN_KERNELS = cast(Kernels, os.environ.get(KERNELS_VARIABLE, "auto"))

# Instruction sets that every kernel is tested with, and backends that every operation is tested with, by name.
KERNELS: tuple[str, ...] = tuple(name for name in instruction_sets() if CHOSEN_KERNELS in ("auto", name))
if CHOSEN_KERNELS == "auto":
    KERNELS = KERNELS[:1]
BACKENDS = (*KERNELS, "reference") if CHOSEN_KERNELS == "auto" else (CHOSEN_KERNELS,)
# Tests of whole models and engines run on one backend: NumPy is several times slower and has its own run
# (`make test-kernels`). tests/engine/verification/test_effect.py, which is slow anyway, runs on all.
ENGINE_BACKENDS = BACKENDS[:1]


# Marks of cases that repeat a test of the default suite with another format or family. They run with the slow tests and
# with `make test-kernels`.
VARIANT = (pytest.mark.slow, pytest.mark.variant)


Arithmetic = Literal["float32", "bfloat16", "int8"]  # to which activations are rounded before a product

# How far that moves an activation, as a part of its size, root mean square.
#   float32   an error of at most half of the last bit, uniformly distributed
#   bfloat16  the same with 8 significant bits instead of 24
#   int8      127 steps up to the largest of 32 values, which is 2.1 times their root mean square if they are normal
ACTIVATION_ROUNDING: dict[Arithmetic, float] = {
    "float32": 2**-24 / math.sqrt(3),
    "bfloat16": 2**-8 / math.sqrt(3),
    "int8": 2.1 / 127 / math.sqrt(12),
}


def arithmetic(ops: Ops, fmt: WeightFormat) -> Arithmetic:
    """The format to which a backend rounds activations before a product with weights in `fmt`: see docs/kernels.md."""
    if fmt in ("f32", "bf16") or not isinstance(ops, CpuOps):
        return "float32"
    return "bfloat16" if ops.instruction_set == "amx" else "int8"


def backend(name: str, threads: int = 2) -> Ops:
    """The backend with this name, one of BACKENDS."""
    return ReferenceOps() if name == "reference" else CpuOps(threads, name)


def chosen_ops(threads: int = 2) -> Ops:
    """The chosen backend, for a test that runs on only one."""
    return make_ops(CHOSEN_KERNELS, threads)
