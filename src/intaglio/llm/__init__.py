"""Text in, text out, with an adapter if wanted: `LLM` for scripts, `AsyncLLM` for asyncio and for the server.

`LLM` runs the engine in this process; `AsyncLLM` in a process of its own, so that a slow forward never delays an HTTP
response. The server uses of it what `RunningModel` has. `inputs.py` checks what a caller gives to either of them.

Stop strings end a request here: `CompletionBuilder.push` (completion.py) finds them, then the engine is told to abort
the sequence, because it knows token ids only.
"""

from __future__ import annotations

from intaglio.completion import Completion, TextDelta, TokenLogprob, Usage
from intaglio.llm.async_llm import AsyncLLM
from intaglio.llm.in_process import LLM
from intaglio.llm.inputs import AdapterSelection
from intaglio.llm.running_model import OnModelLoading, RequestHandle, RunningModel

__all__ = [
    "LLM",
    "AdapterSelection",
    "AsyncLLM",
    "Completion",
    "OnModelLoading",
    "RequestHandle",
    "RunningModel",
    "TextDelta",
    "TokenLogprob",
    "Usage",
]
