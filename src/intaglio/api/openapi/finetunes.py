"""The operations of finetunes: what `api/finetunes/routes.py` does."""

from __future__ import annotations

from typing import Any

import msgspec

from intaglio.api.finetunes.responses import SHAPES
from intaglio.api.finetunes.routes import DEFAULT_PUBLIC_LIMIT, MAX_DESCRIPTION_CHARS, MAX_PUBLIC_LIMIT, CreateFinetune
from intaglio.api.http.envelope import envelope_schema
from intaglio.api.http.wire import component_schemas
from intaglio.api.openapi.error_groups import IN_AN_ACCOUNT, OF_A_BODY, OF_A_CHANGE, OF_A_MODEL, OF_A_READ
from intaglio.api.openapi.operation import JSON, DeclaredResponse, Operation
from intaglio.api.openapi.shapes import (
    ACCOUNT,
    FINETUNE,
    QUERY_FLAG,
    TEXT,
    listed,
    one_of,
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
from intaglio.finetunes.db.repository import ORDER_COLUMNS
from intaglio.finetunes.records import OTHER_NAMES
from intaglio.lora.peft.reader import CONFIG_FILE, WEIGHTS_FILE

TAG = "Finetunes"
BYTES = "application/octet-stream"

_FILE_NAME = one_of((CONFIG_FILE, WEIGHTS_FILE))
_UPLOAD_NAME = {
    "anyOf": [
        one_of((CONFIG_FILE, WEIGHTS_FILE, *OTHER_NAMES)),
        {"type": "string", "pattern": r"^[A-Za-z0-9._-]{1,200}\.gguf$", "description": "a GGUF adapter of llama.cpp"},
    ]
}


def _create_body(model: str) -> dict[str, Any]:
    schema = msgspec.json.schema(CreateFinetune)["$defs"][CreateFinetune.__name__]
    schema["properties"]["model"]["examples"] = [model]
    schema["properties"]["description"]["maxLength"] = MAX_DESCRIPTION_CHARS
    return {name: schema[name] for name in ("type", "properties", "required")}


def finetune_schemas(model: str) -> dict[str, Any]:
    return {
        "CreateFinetune": _create_body(model),
        "UploadFile": record({"file_name": _UPLOAD_NAME, "file": {"type": "string", "format": "binary"}}),
        **component_schemas(SHAPES),
    }


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
_NOT_CHANGED = DeclaredResponse("The caller has this file already.", headers=_FILE_HEADERS)

OPERATIONS: dict[str, Operation] = {
    "create_finetune": Operation(
        TAG, "Create a finetune", "It answers requests once both of its files are uploaded.",
        {200: DeclaredResponse("The new finetune.", {JSON: envelope_schema(ref("Finetune"))})},
        parameters=(ACCOUNT,), body={JSON: ref("CreateFinetune")},
        errors=(*IN_AN_ACCOUNT, *OF_A_BODY, *OF_A_CHANGE, FinetuneError),
    ),
    "list_finetunes": Operation(
        TAG, "List the account's finetunes", "Without their files.",
        {200: DeclaredResponse("The finetunes.", {JSON: envelope_schema(listed(ref("Finetune")))})},
        parameters=(ACCOUNT,), errors=(*IN_AN_ACCOUNT, *OF_A_READ),
    ),
    "list_public_finetunes": Operation(
        TAG, "List public finetunes", "Those of all accounts, and the demo adapters.",
        {200: DeclaredResponse("The finetunes.", {JSON: envelope_schema(listed(ref("Finetune")))})},
        parameters=(ACCOUNT, *_PAGE), errors=(*IN_AN_ACCOUNT, *OF_A_READ, BadInputError),
    ),
    "read_finetune": Operation(
        TAG, "Read a finetune", "With its files, its verification, and how far an upload is.",
        {200: DeclaredResponse("The finetune.", {JSON: envelope_schema(ref("FinetuneDetail"))})},
        parameters=(ACCOUNT, FINETUNE), errors=_ONE,
    ),
    "roll_back_finetune": Operation(
        TAG, "Roll a finetune back",
        "The version before answers again, from one request to the next, as a new version. It takes no body.",
        {200: DeclaredResponse("The finetune, as it is now.", {JSON: envelope_schema(ref("FinetuneDetail"))})},
        parameters=(ACCOUNT, FINETUNE, _TO), errors=(*_ONE, *OF_A_BODY[1:], StorageFullError, FinetuneError),
    ),
    "delete_finetune": Operation(
        TAG, "Delete a finetune", "Its name is free at once. Requests that run with it finish.",
        {200: DeclaredResponse("What is gone.", {JSON: envelope_schema(ref("DeletedFinetune"))})},
        parameters=(ACCOUNT, FINETUNE), errors=(*_ONE, StorageFullError, FinetuneError),
    ),
    "upload_finetune_file": Operation(
        TAG, "Upload a file of a finetune",
        "One of its two files, which is checked as it comes; with the second one it is verified. Both files of "
        "a ready finetune, sent again, replace it. A GGUF adapter is one upload, of which the server makes the two.",
        {200: DeclaredResponse("The file is on the disk.", {JSON: envelope_schema(ref("FinetuneAsset"))})},
        parameters=(ACCOUNT, FINETUNE, _KEEP), body={"multipart/form-data": ref("UploadFile")},
        errors=(*_FILE_ERRORS, *OF_A_BODY[1:], *OF_A_MODEL, StorageFullError, AdapterError, EngineDeadError),
    ),
    "discard_finetune_upload": Operation(
        TAG, "Discard an unfinished upload",
        "The file that waits for the other one, and the reason of a refusal. The current version stays.",
        {200: DeclaredResponse("The finetune.", {JSON: envelope_schema(ref("Finetune"))})},
        parameters=(ACCOUNT, FINETUNE), errors=(*_ONE, StorageFullError, FinetuneError),
    ),
    "download_finetune_file": Operation(
        TAG, "Download a file of a finetune", "Its bytes as they were uploaded.",
        {200: DeclaredResponse("The file.", {JSON: {"type": "object"}, BYTES: {"type": "string", "format": "binary"}},
                     _FILE_HEADERS),
         304: _NOT_CHANGED},
        parameters=(ACCOUNT, FINETUNE, _FILE, _IF_NONE_MATCH), errors=_FILE_ERRORS,
    ),
}  # fmt: skip
