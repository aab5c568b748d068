"""Verifies an adapter folder in this process, as a server verifies an upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec import structs

from intaglio.api.finetunes.responses import finetune_verification
from intaglio.cli.progress.download import download_progress
from intaglio.llm import LLM
from intaglio.model_source import local_model_path
from intaglio.settings import DEFAULT_MODEL_ID, load_settings


def verify_folder(folder: Path, model: str | None) -> dict[str, Any]:
    """The verification in the JSON form of GET /finetunes/{name}, with the digest.

    model  as `local_model_path` takes it; None is the bundled model
    Raises AdapterError if the adapter cannot be served.
    """
    llm = LLM(local_model_path(model or DEFAULT_MODEL_ID, load_settings(), download_progress()))
    ref = llm.load_adapter(folder)
    return {"digest": ref.digest, **structs.asdict(finetune_verification(llm.verify(ref)))}
