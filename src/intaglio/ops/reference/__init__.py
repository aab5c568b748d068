"""The reference backend: the specification of every operation in NumPy, to be checked by hand. Does not know csrc/.

backend, attention, weight, adapter: `ReferenceOps` and its data; adapter_ops: the same arithmetic over the weights of
another backend.
"""

from intaglio.ops.reference.backend import ReferenceOps

__all__ = ["ReferenceOps"]
