"""Types shared by the wire shapes. A shape is a msgspec Struct, declared beside the code that sends it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec

Count = Annotated[int, msgspec.Meta(ge=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Time = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$", description="UTC", examples=["2026-01-31 12:00:00.000"]
    ),
]


def time_text(moment: datetime) -> str:
    """A moment as `Time`, to the millisecond."""
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def component_schemas(shapes: Iterable[type[msgspec.Struct]]) -> dict[str, Any]:
    """The JSON schemas of shapes and of what they contain, by class name, as components of an OpenAPI document."""
    _, components = msgspec.json.schema_components(shapes, ref_template="#/components/schemas/{name}")
    for schema in components.values():
        schema.pop("title", None)
    return dict(components)
