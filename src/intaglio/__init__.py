"""Intaglio: one Gemma, any number of LoRA adapters, on your own machine. This is the public API.

    from intaglio import LLM, SamplingParams
    print(LLM().generate("The capital of France is", SamplingParams(temperature=0), raw=True).text)

`LLM` and `AsyncLLM` are imported on first use, so that `import intaglio` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from intaglio.errors import (
    AdapterError,
    CapacityError,
    EngineError,
    IntaglioError,
    ModelFormatError,
    RequestError,
    SettingsError,
)
from intaglio.request import AdapterRef, FinishReason, SamplingParams, ScaledAdapter
from intaglio.version import __version__

if TYPE_CHECKING:
    from intaglio.llm import LLM, AsyncLLM, Completion, TextDelta
    from intaglio.settings import Settings

__all__ = [
    "LLM",
    "AdapterError",
    "AdapterRef",
    "AsyncLLM",
    "CapacityError",
    "Completion",
    "EngineError",
    "FinishReason",
    "IntaglioError",
    "ModelFormatError",
    "RequestError",
    "SamplingParams",
    "ScaledAdapter",
    "Settings",
    "SettingsError",
    "TextDelta",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in ("LLM", "AsyncLLM", "Completion", "TextDelta"):
        from intaglio import llm

        return getattr(llm, name)
    if name == "Settings":
        from intaglio.settings import Settings

        return Settings
    raise AttributeError(f"module 'intaglio' has no attribute {name!r}")
