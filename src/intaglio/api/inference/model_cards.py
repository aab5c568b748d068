"""Model cards: the entries of models/search.

The ids of the known models are Cloudflare's; other models get an id made from their name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, Any
from uuid import NAMESPACE_URL, uuid5

from msgspec import Meta, Struct

from intaglio.api.catalogue import HOSTED
from intaglio.api.http.wire import Time, time_text


class Task(Struct, frozen=True):
    id: str
    name: str
    description: str


class ModelProperty(Struct, frozen=True):
    property_id: str
    value: str


class Model(Struct, frozen=True):
    """An entry of models/search. Property values are strings, even flags and numbers."""

    id: str
    source: Annotated[int, Meta(description="1: @cf, 2: @hf, 3: this server's own")]
    name: Annotated[str, Meta(description="the id that runs name")]
    description: str
    task: Task
    created_at: Time
    tags: list[str]
    properties: list[ModelProperty]


class Author(Struct, frozen=True):
    name: str


class ModelSchemas(Struct, frozen=True):
    """The JSON schemas of a run."""

    input: dict[str, Any]
    output: dict[str, Any]


TEXT_GENERATION = Task(
    "c329a1f9-323d-4e91-b2aa-582dd4188d34",
    "Text Generation",
    "Family of generative text models, such as large language models (LLM).",
)

_SOURCES = MappingProxyType({"@cf": 1, "@hf": 2})
_OWN_SOURCE = 3


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A listed model. context_window: tokens of prompt and completion together.

    has_weights  whether this server has weights for it
    stand_in     the model that answers in its place, if it has none; None: a run of it is refused
    pretrained   whether what answers is known to be pre-trained only
    """

    name: str
    description: str
    context_window: int
    created_at: datetime
    has_weights: bool = True
    stand_in: str | None = None
    pretrained: bool = False

    @property
    def beta(self) -> bool:
        """Whether the hosted service calls it beta."""
        return self.name in HOSTED and HOSTED[self.name].beta

    @property
    def author(self) -> str:
        """`google` of @cf/google/…, `intaglio` of @intaglio/…"""
        parts = self.name.split("/")
        return parts[1] if len(parts) > 2 else parts[0].lstrip("@")

    @property
    def source(self) -> int:
        """1 for @cf, 2 for @hf, 3 for other names."""
        return _SOURCES.get(self.name.split("/", maxsplit=1)[0], _OWN_SOURCE)

    @property
    def _id(self) -> str:
        hosted = HOSTED.get(self.name)
        return hosted.id if hosted else str(uuid5(NAMESPACE_URL, f"intaglio:model:{self.name}"))

    def entry(self) -> Model:
        """The card's entry in models/search."""
        properties = [ModelProperty("beta", "true")] if self.beta else []
        properties += [ModelProperty("lora", "true"), ModelProperty("context_window", str(self.context_window))]
        if not self.has_weights:
            properties.append(ModelProperty("without_weights", "true"))
        if self.stand_in is not None:
            properties.append(ModelProperty("stand_in", self.stand_in))
        if self.pretrained:
            properties.append(ModelProperty("pretrained", "true"))
        return Model(
            id=self._id,
            source=self.source,
            name=self.name,
            description=self.description,
            task=TEXT_GENERATION,
            created_at=time_text(self.created_at),
            tags=[],
            properties=properties,
        )
