"""Builds the server's state from the settings: loads the models, checks the demo adapters, opens the stores."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path

from intaglio.api.stand_ins import read_stand_ins
from intaglio.api.state import ServerState
from intaglio.batches import BatchLimits, BatchStore
from intaglio.conversations import ResponseLimits, ResponseStore
from intaglio.demo_adapters import FOLDER as DEMO_ADAPTERS
from intaglio.finetunes import Finetune, FinetuneStore
from intaglio.finetunes.demos import read_demo_adapters
from intaglio.llm import AsyncLLM, OnModelLoading
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model_source import local_model_path, model_sources
from intaglio.settings import DEFAULT_MODEL_ID, Settings

logger = logging.getLogger(__name__)


async def build_state(settings: Settings, on_loading: OnModelLoading | None = None) -> ServerState:
    """Load the models of the settings and open the stores. Returns when every engine is ready.

    on_loading  called while weights are quantized, with the model id, the bytes done and the total

    Raises SettingsError for a model entry that is not ID=SOURCE and for settings that this machine cannot run,
    ModelFormatError for weights that cannot be served, AdapterError if a demo adapter is broken, DataFolderError.
    """
    stand_ins = checked_stand_ins(settings)
    paths = await asyncio.to_thread(model_paths, settings)
    bundled = DEFAULT_MODEL_ID in (settings.model or (DEFAULT_MODEL_ID,))
    models = await AsyncLLM.start_all(paths, settings, on_loading)
    try:
        demos = await asyncio.to_thread(_read_demos, models[DEFAULT_MODEL_ID], settings) if bundled else []
        stores = await asyncio.to_thread(open_stores, settings, demos)
    except BaseException:
        await asyncio.gather(*(llm.close() for llm in models.values()))
        raise
    logger.info("serving %s with %d demo adapters", ", ".join(models), len(demos))
    for model_id, answering in stand_ins.items():
        logger.warning("%s has no weights here: %s answers in its place", model_id, answering)
    return ServerState(settings, models, *stores, stand_ins=stand_ins)


def checked_stand_ins(settings: Settings) -> dict[str, str]:
    """`read_stand_ins` for the settings; fetches nothing. Raises SettingsError for a bad entry of models too."""
    return read_stand_ins(settings.stand_in, model_sources(settings.model or (DEFAULT_MODEL_ID,)))


def model_paths(settings: Settings) -> dict[str, Path]:
    """Model id -> path, of the settings' models; of the bundled model alone if they name none.

    Raises as `model_sources` and `local_model_path`.
    """
    sources = model_sources(settings.model or (DEFAULT_MODEL_ID,))
    return {model_id: local_model_path(source, settings) for model_id, source in sources.items()}


def open_finetunes(settings: Settings, demos: list[Finetune]) -> FinetuneStore:
    """The finetunes of the settings' data folder and database. Raises DataFolderError."""
    return FinetuneStore(
        settings.data_path,
        adapter_limits(settings),
        settings.max_finetunes,
        demos,
        database_url=settings.database_url,
        kept_versions=settings.kept_versions,
    )


def open_batches(settings: Settings) -> BatchStore:
    """The batches of the settings' data folder or database. Raises DataFolderError."""
    limits = BatchLimits(
        max_items=settings.max_batch_items,
        max_open_items=settings.max_queued_items,
        max_bytes=settings.max_batch_bytes,
        retention_s=settings.batch_retention_s,
    )
    return BatchStore(settings.data_path / "batches.db", limits, database_url=settings.database_url)


def open_responses(settings: Settings) -> ResponseStore:
    """The stored responses of the settings' data folder or database. Raises DataFolderError."""
    limits = ResponseLimits(retention_s=settings.response_retention_s, max_bytes=settings.max_response_bytes)
    return ResponseStore(settings.data_path / "responses.db", limits, database_url=settings.database_url)


def open_stores(settings: Settings, demos: list[Finetune]) -> tuple[FinetuneStore, BatchStore, ResponseStore]:
    """All stores of the settings. Raises DataFolderError, with none of them open."""
    with ExitStack() as opened:  # closed, for otherwise SQLite's -wal and -shm files stay behind
        finetunes = open_finetunes(settings, demos)
        opened.callback(finetunes.close)
        batches = open_batches(settings)
        opened.callback(batches.close)
        responses = open_responses(settings)
        opened.pop_all()
    return finetunes, batches, responses


def adapter_limits(settings: Settings) -> AdapterLimits:
    return AdapterLimits(
        max_rank=settings.max_adapter_rank,
        max_file_bytes=settings.max_adapter_file_bytes,
        max_memory_bytes=settings.adapter_cache_bytes,
    )


def _read_demos(llm: AsyncLLM, settings: Settings) -> list[Finetune]:
    return read_demo_adapters(DEMO_ADAPTERS, llm.model_id, llm.config, adapter_limits(settings))
