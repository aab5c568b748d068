"""Proves an adapter folder in this process, by the way that a server proves an upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from intaglio.api.finetunes.responses import proof_json
from intaglio.llm import LLM


def prove_folder(folder: Path, model: Path | None) -> dict[str, Any]:
    """The proof as read-one has it, and the digest. Raises AdapterError with the reason if it cannot be served."""
    llm = LLM(model)
    ref = llm.load_adapter(folder)
    return {"digest": ref.digest, **proof_json(llm.prove(ref))}
