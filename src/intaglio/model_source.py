"""What a user names as a model becomes a local path: one function for every command and for `LLM`.

A source is a path, `hf:OWNER/REPO` (see `hub.reference`), or the id of the bundled model.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path

from intaglio.errors import ModelFormatError, SettingsError
from intaglio.hub import DownloadProgress, LineProgress, fetch_model, is_hub_reference, parse_hub_reference
from intaglio.model.bundled import bundled_model_path
from intaglio.settings import DEFAULT_MODEL_ID, Settings
from intaglio.wording import shown, similar_names

logger = logging.getLogger(__name__)

_LIKE_A_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


_WANTED = f"a folder, a .gguf file, hf:OWNER/REPO or {DEFAULT_MODEL_ID}"


def local_model_path(source: str | Path, settings: Settings, progress: DownloadProgress | None = None) -> Path:
    """The folder or file of a model. Fetches one of the hub if it is not in the hub's cache.

    progress  of a download; None writes log lines
    Raises ModelFormatError for a path that does not exist, SettingsError for a malformed reference or a value of
    another type, HubError for a model that the hub does not give, ModelNotInstalledError if the bundled
    model is not installed.
    """
    if source == DEFAULT_MODEL_ID:
        return bundled_model_path(settings.cache_path)
    if isinstance(source, str) and is_hub_reference(source):
        return fetch_model(parse_hub_reference(source), progress or LineProgress(logger.info))
    if not isinstance(source, str | Path) or not str(source):
        raise SettingsError(f"the model is {shown(source)}; {_WANTED} is needed")
    path = Path(source).expanduser()
    if not path.exists():
        raise ModelFormatError(f"{path} does not exist{_advice(str(source))}")
    return path


def _advice(source: str) -> str:
    """What was probably meant by a path that does not exist."""
    if similar_names(source, [DEFAULT_MODEL_ID]):
        return f"; did you mean {DEFAULT_MODEL_ID}?"
    if _LIKE_A_REPOSITORY.fullmatch(source):
        return f"; for a model of the Hugging Face hub give hf:{source}"
    return "" if source.startswith(("/", ".", "~")) else f"; {_WANTED} is needed"


def model_sources(entries: Iterable[str]) -> dict[str, str]:
    """Model id -> source, from entries ID=SOURCE. The bundled model needs only its id.

    Raises SettingsError naming the entry that is malformed or the id that is given twice.
    """
    sources: dict[str, str] = {}
    for entry in entries:
        model_id, equals, source = entry.partition("=")
        if entry == DEFAULT_MODEL_ID:
            source = DEFAULT_MODEL_ID
        elif not (model_id and equals and source):
            raise SettingsError(
                f"model {entry!r} is not ID=PATH or ID=hf:OWNER/REPO (nor {DEFAULT_MODEL_ID}, the bundled model)"
            )
        if model_id in sources:
            raise SettingsError(f"model {model_id!r} is given twice: {sources[model_id]} and {source}")
        sources[model_id] = source
    return sources


def with_local_models(settings: Settings, progress: DownloadProgress | None = None) -> Settings:
    """The settings with every model of the hub fetched, and its reference replaced by its path.

    Raises as `local_model_path` and `model_sources`.
    """

    def local(source: str) -> str:
        return str(local_model_path(source, settings, progress)) if is_hub_reference(source) else source

    sources = model_sources(settings.model)
    entries = tuple(
        model_id if model_id == source == DEFAULT_MODEL_ID else f"{model_id}={local(source)}"
        for model_id, source in sources.items()
    )
    tokenizer = settings.tokenizer and local(settings.tokenizer)
    return settings.model_copy(update={"model": entries, "tokenizer": tokenizer})
