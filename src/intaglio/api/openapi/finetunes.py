"""The operations of finetunes: what `api/finetunes/routes.py` does."""

from __future__ import annotations

from typing import Any

import msgspec

from intaglio.api.finetunes.routes import DEFAULT_PUBLIC_LIMIT, MAX_DESCRIPTION_CHARS, MAX_PUBLIC_LIMIT, CreateFinetune
from intaglio.api.openapi.error_groups import IN_AN_ACCOUNT, OF_A_BODY, OF_A_CHANGE, OF_A_MODEL, OF_A_READ
from intaglio.api.openapi.operation import JSON, Answer, Operation
from intaglio.api.openapi.shapes import (
    ACCOUNT,
    COUNT,
    FINETUNE,
    FLAG,
    QUERY_FLAG,
    TEXT,
    TIME,
    envelope_schema,
    listed,
    one_of,
    or_null,
    parameter,
    record,
    ref,
)
from intaglio.errors import (
    AdapterError,
    BadInputError,
    EngineDeadError,
    FinetuneError,
    FinetuneNotFoundError,
    FinetuneNotReadyError,
    StorageFullError,
)
from intaglio.finetunes import FinetuneState
from intaglio.finetunes.db.repository import ORDER_COLUMNS
from intaglio.finetunes.upload import STORING, VERIFYING
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE, ReadStep

TAG = "Finetunes"
BYTES = "application/octet-stream"

_FILE_NAME = one_of((CONFIG_FILE, WEIGHTS_FILE))
_STATE = {**one_of([state.value for state in FinetuneState]), "description": "only a ready one answers requests"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_SIZE = {"type": "number", "minimum": 0}
_VERSION = {**COUNT, "description": "the number of the version that answers; 0 before the first"}
_PROGRESS = {"missing_files": listed(_FILE_NAME), "check": ref("FinetuneCheck")}
_FIELDS = {
    "id": {"type": "string", "format": "uuid"},
    "account_id": TEXT,
    "name": TEXT,
    "model": {**TEXT, "description": "the base that it belongs to"},
    "description": TEXT,
    "public": {**FLAG, "description": "other accounts can use it by its id"},
    "created_at": TIME,
    "modified_at": TIME,
    "state": _STATE,
    "version": _VERSION,
    "verified": {**FLAG, "description": "the version that answers was run beside its reference when it came"},
}
_SOMETIMES = {
    "reason": {**TEXT, "description": "why the last upload was refused"},
    "digest": {**_SHA256, "description": "the identity of the adapter that answers"},
    "example_prompt": TEXT,
}


def _create_body(model: str) -> dict[str, Any]:
    schema = msgspec.json.schema(CreateFinetune)["$defs"][CreateFinetune.__name__]
    schema["properties"]["model"]["examples"] = [model]
    schema["properties"]["description"]["maxLength"] = MAX_DESCRIPTION_CHARS
    return {name: schema[name] for name in ("type", "properties", "required")}


def finetune_schemas(model: str) -> dict[str, Any]:
    return {
        "CreateFinetune": _create_body(model),
        "UploadFile": record({"file_name": _FILE_NAME, "file": {"type": "string", "format": "binary"}}),
        "Finetune": record(_FIELDS, _SOMETIMES),
        "FinetuneDetail": record(
            {**_FIELDS, "files": listed(ref("FinetuneFile")), "verification": or_null(ref("FinetuneVerification")),
             "earlier": listed(ref("EarlierVersion"))},
            {**_SOMETIMES, **_PROGRESS, "pending": ref("PendingVersion")},
        ),
        "FinetuneFile": record({"file_name": _FILE_NAME, "size": COUNT, "sha256": _SHA256, "uploaded_at": TIME}),
        "FinetuneCheck": record({
            "file_name": _FILE_NAME,
            "step": one_of([*(step.value for step in ReadStep), VERIFYING, STORING]),
            "step_since": TIME,
            "started_at": TIME,
        }),
        "PendingVersion": record(
            {
                "version": COUNT,
                "state": _STATE,
                "files": listed(ref("FinetuneFile")),
                "missing_files": listed(_FILE_NAME),
            },
            {"reason": TEXT, "check": ref("FinetuneCheck")},
        ),
        "FinetuneAsset": record(
            {
                "id": {**_SHA256, "description": "the file's own"},
                "bucket_name": TEXT,
                "created_at": TIME,
                "file_name": _FILE_NAME,
                "finetune_id": TEXT,
                "modified_at": TIME,
                "state": _STATE,
                "version": _VERSION,
            },
            {"pending": ref("PendingVersion"), "verification": or_null(ref("FinetuneVerification"))},
        ),
        "EarlierVersion": record({"version": COUNT, "digest": _SHA256}),
        "FinetuneVerification": record({
            "verdict": {"const": "verified", "description": "what is not verified is refused, and has no verification"},
            "modules": {**COUNT, "description": "modules of the base that the adapter changes"},
            "rank": {**COUNT, "description": "the largest of their ranks"},
            "largest_logit_change": {**_SIZE, "description": "what the adapter changes in one logit at most"},
            "mean_logit_change": {**_SIZE, "description": "over all logits of the text"},
            "agreement": {"type": "number", "description": "with the arithmetic that the files ask for; 1 is exact"},
            "canary_tokens": {**COUNT, "description": "length of the text that it was run on"},
            "seconds": _SIZE,
            "scalable": {**FLAG, "description": "a request may scale it and add others to it"},
        }),
        "DeletedFinetune": record({"id": TEXT, "name": TEXT, "model": TEXT, "deleted": {"const": True}}),
    }  # fmt: skip


_ONE = (*IN_AN_ACCOUNT, FinetuneNotFoundError, *OF_A_READ)
_FILE = parameter("file_name", "path", _FILE_NAME)
_KEEP = parameter(
    "keep_other_file", "query", QUERY_FLAG, "Replace this one file, and pair it with the other one that is in use."
)
_TO = parameter(
    "version", "query", {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "One of those in `earlier`; the newest of them where it is not sent.",
)  # fmt: skip
_PAGE = (
    parameter("limit", "query",
              {"type": "integer", "minimum": 0, "maximum": MAX_PUBLIC_LIMIT, "default": DEFAULT_PUBLIC_LIMIT}),
    parameter("offset", "query", {"type": "integer", "minimum": 0, "maximum": 2**31 - 1, "default": 0}),
    parameter("orderBy", "query", {**one_of(ORDER_COLUMNS), "default": "created_at"}),
)  # fmt: skip
_IF_NONE_MATCH = parameter("if-none-match", "header", TEXT, "Etags of what the caller has.")
_FILE_HEADERS = {"etag": "The file's SHA-256, in quotes.", "last-modified": "When it was uploaded.",
                 "content-disposition": "The file's name."}  # fmt: skip
_FILE_ERRORS = (*_ONE, FinetuneNotReadyError, FinetuneError)
_NOT_CHANGED = Answer("The caller has this file already.", headers=_FILE_HEADERS)

OPERATIONS: dict[str, Operation] = {
    "create_finetune": Operation(
        TAG, "Create a finetune", "It answers requests once both of its files are uploaded.",
        {200: Answer("The new finetune.", {JSON: envelope_schema(ref("Finetune"))})},
        parameters=(ACCOUNT,), body={JSON: ref("CreateFinetune")},
        errors=(*IN_AN_ACCOUNT, *OF_A_BODY, *OF_A_CHANGE, FinetuneError),
    ),
    "list_finetunes": Operation(
        TAG, "List the account's finetunes", "Without their files.",
        {200: Answer("The finetunes.", {JSON: envelope_schema(listed(ref("Finetune")))})},
        parameters=(ACCOUNT,), errors=(*IN_AN_ACCOUNT, *OF_A_READ),
    ),
    "list_public_finetunes": Operation(
        TAG, "List public finetunes", "Those of all accounts, and the demo adapters.",
        {200: Answer("The finetunes.", {JSON: envelope_schema(listed(ref("Finetune")))})},
        parameters=(ACCOUNT, *_PAGE), errors=(*IN_AN_ACCOUNT, *OF_A_READ, BadInputError),
    ),
    "read_finetune": Operation(
        TAG, "Read a finetune", "With its files, its verification, and how far an upload is.",
        {200: Answer("The finetune.", {JSON: envelope_schema(ref("FinetuneDetail"))})},
        parameters=(ACCOUNT, FINETUNE), errors=_ONE,
    ),
    "roll_back_finetune": Operation(
        TAG, "Roll a finetune back",
        "The version before answers again, from one request to the next, as a new version. It takes no body.",
        {200: Answer("The finetune, as it is now.", {JSON: envelope_schema(ref("FinetuneDetail"))})},
        parameters=(ACCOUNT, FINETUNE, _TO), errors=(*_ONE, *OF_A_BODY[1:], StorageFullError, FinetuneError),
    ),
    "delete_finetune": Operation(
        TAG, "Delete a finetune", "Its name is free at once. Requests that run with it finish.",
        {200: Answer("What is gone.", {JSON: envelope_schema(ref("DeletedFinetune"))})},
        parameters=(ACCOUNT, FINETUNE), errors=(*_ONE, StorageFullError, FinetuneError),
    ),
    "upload_finetune_file": Operation(
        TAG, "Upload a file of a finetune",
        "One of its two files, which is checked as it comes; with the second one it is verified. Both files of "
        "a ready finetune, sent again, replace it.",
        {200: Answer("The file is on the disk.", {JSON: envelope_schema(ref("FinetuneAsset"))})},
        parameters=(ACCOUNT, FINETUNE, _KEEP), body={"multipart/form-data": ref("UploadFile")},
        errors=(*_FILE_ERRORS, *OF_A_BODY[1:], *OF_A_MODEL, StorageFullError, AdapterError, EngineDeadError),
    ),
    "download_finetune_file": Operation(
        TAG, "Download a file of a finetune", "Its bytes as they were uploaded.",
        {200: Answer("The file.", {JSON: {"type": "object"}, BYTES: {"type": "string", "format": "binary"}},
                     _FILE_HEADERS),
         304: _NOT_CHANGED},
        parameters=(ACCOUNT, FINETUNE, _FILE, _IF_NONE_MATCH), errors=_FILE_ERRORS,
    ),
}  # fmt: skip
