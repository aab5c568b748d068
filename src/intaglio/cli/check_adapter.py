"""Verifies an adapter folder in this process, as a server verifies an upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import structs

from intaglio.api.finetunes.responses import finetune_verification
from intaglio.llm import LLM


def verify_folder(folder: Path, model: Path | None) -> dict[str, Any]:
    """The verification in the JSON form of GET /finetunes/{name}, with the digest.

    Raises AdapterError if the adapter cannot be served.
    """
    llm = LLM(model)
    ref = llm.load_adapter(folder)
    return {"digest": ref.digest, **structs.asdict(finetune_verification(llm.verify(ref)))}
