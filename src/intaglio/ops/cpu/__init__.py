"""The CPU backend: C++ kernels (the extension module `ops/_cpu`, from csrc/) on NumPy arrays. Does not know models.

backend, weight, adapter: `CpuOps`, a matrix of the base and an adapter in the kernels' layout.
"""

from intaglio.ops._cpu import instruction_sets
from intaglio.ops.cpu.backend import CpuOps
from intaglio.ops.cpu.weight import CpuWeight

__all__ = ["CpuOps", "CpuWeight", "instruction_sets"]
