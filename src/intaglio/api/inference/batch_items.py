"""Runs one item of a batch: a request that is checked and run like any other.

Only its priority differs: interactive requests go first. The adapter that an item names is looked up when the item
runs, not at the submission: it may have been replaced or deleted since.
"""

from __future__ import annotations

import msgspec

from intaglio.api.http.errors import error_item
from intaglio.api.inference.lora_field import lora_fields
from intaglio.api.inference.results import BatchAnswer, BatchFailure
from intaglio.api.inference.run_input import RunInput, read_run_input
from intaglio.api.inference.running_request import start_request
from intaglio.api.inference.schema import RunSchema
from intaglio.api.state import ServerState
from intaglio.batches import BatchRunner, Item, ItemResult, ModelClaims, TokenCounts
from intaglio.errors import BadInputError, CapacityError, IntaglioError
from intaglio.request import Priority
from intaglio.wording import wrong_type


def batch_runner(state: ServerState, schema: RunSchema) -> BatchRunner:
    """The runner of a server's batches, not yet started."""
    settings = state.settings
    return BatchRunner(
        state.batches,
        ModelClaims(settings.data_path / "batch-claims"),
        BatchItems(state, schema),
        models=state.callable_models,
        max_running=settings.batch_running or max(1, settings.max_running // 2),
        added=state.batch_added,
    )


class BatchItems:
    """Runs items and encodes their results as entries of the batch's list of responses."""

    def __init__(self, state: ServerState, schema: RunSchema) -> None:
        self._state = state
        self._schema = schema

    async def run(self, item: Item) -> ItemResult:
        """Run the item. Raises CapacityError if it has to wait, and otherwise what a single run raises."""
        if not self._state.llm(item.model).ready:
            raise CapacityError("the engine is being started")
        body = msgspec.json.decode(item.request)
        run_input = self._read_input(body, item)
        running = await start_request(
            self._state, item.account, item.model, run_input, _request_id(item), priority=Priority.BATCH
        )
        async with running:
            result = await running.result()
        usage = result.usage
        tokens = TokenCounts(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens)
        entry = BatchAnswer(item.key.place, result, True, _external_reference(item))
        answered_by = self._state.stand_ins.get(item.model)
        return ItemResult(item.key, msgspec.json.encode(entry), True, tokens, answered_by)

    def error_result(self, item: Item, error: IntaglioError) -> ItemResult:
        errors = [error_item(error, _request_id(item))]
        entry = BatchFailure(item.key.place, {}, False, errors, _external_reference(item))
        return ItemResult(item.key, msgspec.json.encode(entry), False)

    def _read_input(self, body: object, item: Item) -> RunInput:
        """The item merged with the settings of the whole batch, and checked. Raises BadInputError."""
        shared = msgspec.json.decode(item.shared)
        if isinstance(body, dict):
            reference = body.get("external_reference")
            if not isinstance(reference, str | None):
                raise BadInputError(wrong_type("external_reference", reference, ["string"]))
            fields = shared["fields"]
            if lora_fields(body, {}):  # its own adapters replace the batch's
                fields.pop("lora", None)
            body = {**fields, **body}
        run_input = read_run_input(body, shared["query"], self._schema)
        if run_input.stream:
            raise BadInputError("stream cannot be true in a batch")
        if run_input.reject_if_busy:
            raise BadInputError("options.rejectIfBusy cannot be used in a batch, which waits for capacity")
        return run_input


def _request_id(item: Item) -> str:
    return f"{item.key.batch_id}-{item.key.place}"


def _external_reference(item: Item) -> str | None:
    body = msgspec.json.decode(item.request)
    reference = body.get("external_reference") if isinstance(body, dict) else None
    return reference if isinstance(reference, str) else None
