"""The Gemma models that Workers AI hosts, with the facts of its own listing.

They are listed whether this server has weights for them or not. Ids, windows and flags are Cloudflare's, from the
catalogue in its documentation. All take the same input, with the same defaults: see `inference/schema.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class HostedModel:
    """A model of the hosted service.

    id              Cloudflare's, of the listing
    context_window  tokens of prompt and completion together
    hub             the repository of its weights at the Hugging Face hub
    """

    name: str
    id: str
    description: str
    context_window: int
    beta: bool
    hub: str


_ALL = (
    HostedModel(
        "@cf/google/gemma-7b-it-lora",
        "337170b7-bd2f-4631-9a57-688b579cf6d3",
        "Gemma 7B, instruction-tuned, for LoRA adapters",
        3500,
        beta=True,
        hub="google/gemma-7b-it",
    ),
    HostedModel(
        "@cf/google/gemma-2b-it-lora",
        "e8e8abe4-a372-4c13-815f-4688ba655c8e",
        "Gemma 2B, instruction-tuned, for LoRA adapters",
        8192,
        beta=True,
        hub="google/gemma-2b-it",
    ),
    HostedModel(
        "@cf/google/gemma-3-12b-it",
        "053d5ac0-861b-4d3b-8501-e58d00417ef8",
        "Gemma 3 12B, instruction-tuned, in more than 140 languages; here its text part",
        80_000,
        beta=False,
        hub="google/gemma-3-12b-it",
    ),
    HostedModel(
        "@hf/google/gemma-7b-it",
        "0f002249-7d86-4698-aabf-8529ed86cefb",
        "Gemma 7B, instruction-tuned",
        8192,
        beta=True,
        hub="google/gemma-7b-it",
    ),
)

HOSTED = MappingProxyType({model.name: model for model in _ALL})


def serving_advice(model: HostedModel) -> str:
    """How a server is given the weights of the model, or another one in its place."""
    return (
        f"Serve it with --model '{model.name}=hf:{model.hub}' (or a folder, or a .gguf file), "
        f"or let another model answer in its place with --stand-in '{model.name}'"
    )
