"""The extension module built from csrc/; csrc/runtime/device.h says what each call checks."""

from typing import Any

class PackedMatrix: ...

def search_affine(values: Any, weights: Any | None, most: int, whole: Any, scales: Any, minima: Any) -> None: ...

class Pages:
    def __init__(self, size: int) -> None: ...

class AdapterWeights:
    size: int
    shapes: list[Any]
    values: Any
    vectors: Any
    def __init__(self, projections: list[Any], spare: Pages | None = None) -> None: ...
    @staticmethod
    def attach(shapes: list[Any], values: Any, vectors: Any, spare: Pages | None = None) -> AdapterWeights: ...

class LoraPlan:
    def __init__(self, segments: list[Any]) -> None: ...

class AttentionPlan:
    highest_position: int
    def __init__(self, rows: list[Any], block_size: int) -> None: ...

class Device:
    isa: str
    threads: int
    def __init__(self, threads: int, isa: str | None = None) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def pack(
    format: int, out: int, inputs: int, values: Any, scales: Any | None = None, minima: Any | None = None
) -> PackedMatrix: ...
def instruction_sets() -> list[str]: ...
