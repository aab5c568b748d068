"""What the catalogue tells about models: the entries of models/search.

The ids of the known models are the ones Cloudflare's catalogue has; other models get an id made from their name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from intaglio.api.http.wire import time_text

TEXT_GENERATION = MappingProxyType({
    "id": "c329a1f9-323d-4e91-b2aa-582dd4188d34",
    "name": "Text Generation",
    "description": "Family of generative text models, such as large language models (LLM).",
})  # fmt: skip

_KNOWN_IDS = MappingProxyType({
    "@cf/google/gemma-7b-it-lora": "337170b7-bd2f-4631-9a57-688b579cf6d3",
    "@cf/google/gemma-2b-it-lora": "e8e8abe4-a372-4c13-815f-4688ba655c8e",
})  # fmt: skip

_SOURCES = MappingProxyType({"@cf": 1, "@hf": 2})
_OWN_SOURCE = 3


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model as the catalogue shows it. context_window is in tokens, prompt and answer together."""

    name: str
    description: str
    context_window: int
    created_at: datetime
    beta: bool

    @property
    def author(self) -> str:
        """`google` of @cf/google/…, `intaglio` of @intaglio/…"""
        parts = self.name.split("/")
        return parts[1] if len(parts) > 2 else parts[0].lstrip("@")

    @property
    def source(self) -> int:
        """1 for @cf, 2 for @hf, 3 for what only this server has."""
        return _SOURCES.get(self.name.split("/", maxsplit=1)[0], _OWN_SOURCE)

    def as_json(self) -> dict[str, Any]:
        """The entry of models/search. Property values are strings, also of flags and numbers."""
        properties = [
            {"property_id": "lora", "value": "true"},
            {"property_id": "context_window", "value": str(self.context_window)},
        ]
        if self.beta:
            properties.insert(0, {"property_id": "beta", "value": "true"})
        return {
            "id": _KNOWN_IDS.get(self.name) or str(uuid5(NAMESPACE_URL, f"intaglio:model:{self.name}")),
            "source": self.source,
            "name": self.name,
            "description": self.description,
            "task": dict(TEXT_GENERATION),
            "created_at": time_text(self.created_at),
            "tags": [],
            "properties": properties,
        }
