"""The reference backend: the specification of every operation in NumPy, to be checked by hand. Knows nothing of csrc/.

backend, attention, weight, adapter: `ReferenceOps` and what it computes with; adapter_ops: the
same over the weights of another backend.
"""

from intaglio.ops.reference.backend import ReferenceOps

__all__ = ["ReferenceOps"]
