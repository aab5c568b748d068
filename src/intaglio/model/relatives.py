"""Models of the Gemma family with another architecture: refused by name, with what to take instead."""

from __future__ import annotations

_SERVED = "this server runs Gemma 1, 2 and 3"

# By the beginning of the model type or the architecture.
_RELATIVES = {
    "gemma3n": "Gemma 3n, which has embeddings in every layer",
    "gemma4": "Gemma 4, whose layers share keys and values and have heads of two sizes",
    "gemma-embedding": "EmbeddingGemma, which embeds texts and writes none",
    "t5gemma": "T5Gemma, which has an encoder",
    "paligemma": "PaliGemma, which reads images with every prompt",
    "recurrent_gemma": "RecurrentGemma, most of whose layers are recurrent",
    "shieldgemma2": "ShieldGemma 2, which classifies images",
}


def refusal(key: str, name: object) -> str:
    """The error message for a model that is not served. key, name: where its kind was read, and the value there."""
    kind = next((text for start, text in _RELATIVES.items() if str(name).startswith(start)), None)
    shown = f"{key} is {name!r}"
    if kind is None:
        return f"{shown}; {_SERVED} (gemma, gemma2, gemma3, gemma3_text)"
    return f"{shown}: {kind}. It is not served; {_SERVED}, such as google/gemma-3-4b-it"
