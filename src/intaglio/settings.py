"""Every option of the server: default, unit, environment variable. The only reader of the environment.

Each field of `Settings` is an option of `intaglio serve` (`kv_cache_bytes` is `--kv-cache-bytes`) and an environment
variable with the prefix INTAGLIO_ (`INTAGLIO_KV_CACHE_BYTES`); those of `ClientSettings` are options of the commands
that talk to a running server. The command line wins over the environment, and both win over a config file. A misspelt
variable or key is an error, because finding an option that was silently ignored takes an hour.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as SettingsParseError

from intaglio.config_file import read_config_file
from intaglio.errors import SettingsError
from intaglio.wording.similar import meant_or

logger = logging.getLogger(__name__)

PREFIX = "INTAGLIO_"
DATABASE_SCHEME = "postgresql+psycopg://"
_SHORT_SCHEMES = ("postgresql://", "postgres://")  # as libpq and hosts of databases write them
DEFAULT_MODEL_ID = "@intaglio/gemma-3-270m"

WeightFormat = Literal["auto", "f32", "bf16", "w8", "w5", "w4"]
AdapterFormat = Literal["auto", "f32", "f16", "int8"]
KVCacheFormat = Literal["auto", "f32", "bf16", "int8"]
Kernels = Literal["auto", "reference", "amx", "avx512vnni", "avx2", "neon", "plain"]


class Settings(BaseSettings):
    """All options, frozen. Build it with `load_settings`, which turns mistakes into one readable sentence."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    config: Path | None = Field(
        None, description="TOML file with any of these settings; the command line and the environment win over it"
    )

    # the address
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")

    # the models
    model: tuple[str, ...] = Field(
        (),
        description="models to serve, each ID=PATH, a Hugging Face folder, a .gguf file or a file of `intaglio pack`, "
        "or ID=hf:OWNER/REPO; "
        f"{DEFAULT_MODEL_ID} alone, or no entry at all, is the bundled model",
    )
    stand_in: tuple[str, ...] = Field(
        (),
        description="ids of the catalogue that have no weights here and that a served model answers for, to try client "
        "code: each ID, or ID=SERVED_ID if several models are served",
    )
    tokenizer: str | None = Field(
        None,
        description="whose tokenizer and chat template to use for a folder that has none: the id of another served "
        "model, or a path",
    )
    format: WeightFormat = Field(
        "auto",
        description="how weights are held: f32, bf16, w8, w5, w4 (8, 5, 4 bits), or auto: as the checkpoint has them, "
        "in fewer bits if unquantized weights would not fit",
    )
    context_window: int | None = Field(
        None,
        ge=16,
        description="prompt and completion tokens together (vLLM: max_model_len); none: what the checkpoint allows",
    )

    # the folders
    data_dir: Path = Field(
        Path("~/.local/share/intaglio"),
        description="finetunes, batches and stored responses: databases and files; made if missing",
    )
    database_url: str | None = Field(
        None,
        repr=False,  # there may be a password in it
        description="PostgreSQL for finetunes, batches and stored responses, postgresql://USER@HOST/NAME; "
        "none: SQLite in data_dir; the adapters' files are in data_dir either way",
    )
    cache_dir: Path = Field(
        Path("~/.cache/intaglio"),
        description="files that can be rebuilt: assembled model, tokenizer, packed weights, adapters; made if missing",
    )

    # the engine
    threads: int | None = Field(None, ge=1, le=256, description="compute threads; none: one per core")
    kernels: Kernels = Field(
        "auto", description="instruction set of the CPU kernels; auto: the best of this machine; reference: plain NumPy"
    )
    max_running: int = Field(32, ge=1, le=1024, description="sequences in one forward at most (vLLM: max_num_seqs)")
    max_waiting: int = Field(256, ge=1, description="requests waiting at most; further ones get 429")
    step_tokens: int = Field(
        512,
        ge=1,
        description="tokens in one forward at most: decodes, then chunks of prompts (vLLM: max_num_batched_tokens)",
    )
    kv_block_size: int = Field(16, ge=1, le=256, description="tokens in one block of the KV cache (vLLM: block_size)")
    kv_cache_bytes: int | None = Field(
        None, ge=1 << 16, description="bytes for keys and values of all sequences; none: what the machine can spare"
    )
    kv_format: KVCacheFormat = Field(
        "auto",
        description="how keys and values are held: f32, bf16, int8 (with scales), or auto: bf16 beside "
        "quantized weights, f32 beside others",
    )
    prefix_cache: bool = Field(
        True, description="reuse blocks of earlier prompts in requests that begin alike (vLLM: enable_prefix_caching)"
    )

    # adapters
    adapter_cache_bytes: int = Field(1 << 30, ge=1 << 16, description="bytes for adapters held in memory")
    adapter_format: AdapterFormat = Field(
        "auto",
        description="how adapters are held in memory: f32, f16, int8 (a scale per rank), or auto: f16 beside quantized "
        "weights, f32 beside others",
    )
    max_adapter_rank: int = Field(
        256, ge=1, description="largest LoRA rank accepted (vLLM: max_lora_rank; Workers AI: 32, before April 2025 8)"
    )
    max_adapter_file_bytes: int = Field(
        10**9,
        ge=1,
        description="largest adapter_model.safetensors accepted, bytes (Workers AI: 300 MB, before April 2025 100 MB)",
    )
    max_finetunes: int = Field(10_000, ge=1, description="finetunes per account at most (Workers AI: 100)")
    kept_versions: int = Field(
        2, ge=1, description="versions of a finetune whose files are kept, the current one included"
    )

    # batches
    batch_running: int | None = Field(
        None, ge=1, le=1024, description="batch items of one model that run at once; none: half of max_running"
    )
    max_batch_items: int = Field(10_000, ge=1, description="requests in one batch at most")
    max_queued_items: int = Field(100_000, ge=1, description="requests of all unfinished batches at most")
    max_batch_bytes: int = Field(
        10**9, ge=1, description="bytes of waiting batches and of kept results on disk at most"
    )
    batch_retention_s: int = Field(
        86_400, ge=1, description="seconds for which the results of a finished batch are kept"
    )

    # stored responses
    response_retention_s: int = Field(
        30 * 86_400,
        ge=1,
        description="seconds for which a response of /v1/responses is kept, if it is stored",
    )
    max_response_bytes: int = Field(
        256 * 10**6,
        ge=1,
        description="bytes of all kept responses and their conversations; the oldest go first",
    )

    # the API
    api_tokens: tuple[str, ...] = Field(
        (), repr=False, description="accepted API tokens; none: every request is accepted"
    )
    run_max_tokens: int = Field(
        256, ge=0, description="max_tokens of a request to run or to env.AI, or of a batch, that names none"
    )
    chat_max_tokens: int = Field(
        256, ge=-1, description="max_tokens of a chat completion that names none; -1: what the window has room for"
    )
    completions_max_tokens: int = Field(
        256, ge=-1, description="max_tokens of a completion that names none (OpenAI: 16); -1: as for chat_max_tokens"
    )
    responses_max_tokens: int = Field(
        256, ge=-1, description="max_output_tokens of a response that names none; -1: as for chat_max_tokens"
    )
    max_body_bytes: int = Field(10 * 10**6, ge=1, description="largest JSON body accepted, bytes")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgresql(cls, url: str | None) -> str | None:
        if url is None or url.startswith(DATABASE_SCHEME):
            return url
        short = next((short for short in _SHORT_SCHEMES if url.startswith(short)), None)
        if short is None:
            scheme = f"begins with {url.partition('://')[0]}://" if "://" in url else "has no scheme"
            raise ValueError(f"it {scheme}, and {_SHORT_SCHEMES[0]} is needed")
        return DATABASE_SCHEME + url.removeprefix(short)

    @property
    def data_path(self) -> Path:
        return self.data_dir.expanduser()

    @property
    def cache_path(self) -> Path:
        return self.cache_dir.expanduser()


class ClientSettings(BaseSettings):
    """Options of commands that talk to a running server. Build it with `load_client_settings`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    url: str = Field("http://127.0.0.1:8080", description="address of the server")
    account: str | None = Field(None, description="account that owns the finetunes")
    token: str | None = Field(None, description="API token, if the server requires one")


def _value_message(field: FieldInfo, name: str, fault: ErrorDetails) -> str:
    """The error message: value, what is allowed, meaning. Not in pydantic's words, which change with its version."""
    ours = fault.get("ctx", {}).get("error")  # raised by a validator of this module
    allowed = str(ours) if isinstance(ours, ValueError) else _allowed_values(field)
    shown = repr(fault["input"]) if field.repr else "not shown here"
    return f"setting {name!r} is {shown}; {allowed} ({field.description})"


def _allowed_values(field: FieldInfo) -> str:
    """The values that a setting may have, from its declared type and bounds."""
    hint = field.annotation
    choices = [choice for part in (hint, *get_args(hint)) if get_origin(part) is Literal for choice in get_args(part)]
    bounds = {kind: getattr(one, kind) for one in field.metadata for kind in ("ge", "le") if hasattr(one, kind)}
    if choices:
        return f"one of {', '.join(choices)} is needed"
    if "le" in bounds:
        return f"a whole number from {bounds['ge']} to {bounds['le']} is needed"
    if "ge" in bounds:
        return f"a whole number of at least {bounds['ge']} is needed"
    if get_origin(hint) is tuple:
        return "a list of strings is needed"
    if hint is bool:
        return "true or false is needed"
    return "a path is needed" if hint is Path else "a string is needed"


def _json_message(kind: type[BaseSettings], error: SettingsParseError) -> str:
    """The error message: which variable of a list setting is not JSON."""
    for name, field in kind.model_fields.items():
        variable = PREFIX + name.upper()
        given = os.environ.get(variable)
        if given is not None and get_origin(field.annotation) is tuple and not _is_json(given):
            return f'{variable} is {given!r}; a JSON list is needed, for example ["a", "b"] ({field.description})'
    return f"a variable with the prefix {PREFIX} cannot be read: {error}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def load_settings(**options: Any) -> Settings:
    """Settings from the given options, the environment and a config file, in that order of precedence.

    The file is that of the option `config` or of INTAGLIO_CONFIG; without either there is none.
    Raises SettingsError naming the first option, variable or key that is unknown or out of bounds.
    """
    _refuse_unknown_variables()
    given = options.get("config", os.environ.get(f"{PREFIX}CONFIG"))
    if given is None:
        return _load(Settings, options)
    path = Path(given).expanduser()
    in_file = {name: field for name, field in Settings.model_fields.items() if name != "config"}
    values = read_config_file(path, in_file, DEFAULT_MODEL_ID)
    _warn_of_readers(path, values)
    variables = {variable.upper() for variable in os.environ}
    used = {
        name: value for name, value in values.items() if name not in options and PREFIX + name.upper() not in variables
    }
    return _load(Settings, {**used, **options, "config": path}, dict.fromkeys(used, f"{path}: "))


def _warn_of_readers(path: Path, values: dict[str, Any]) -> None:
    """Warn of secrets in a file that other users may read. No error: secrets mounted into a container are readable."""
    secrets = [name for name in values if not Settings.model_fields[name].repr]
    if secrets and path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("%s has %s and can be read by other users: chmod 600 %s", path, " and ".join(secrets), path)


def load_client_settings(**options: Any) -> ClientSettings:
    """Settings of commands that talk to a running server; otherwise as `load_settings`."""
    return _load(ClientSettings, options)


_Kind = TypeVar("_Kind", bound=BaseSettings)


def _refuse_unknown_variables() -> None:
    known = {PREFIX + name.upper() for one in (Settings, ClientSettings) for name in one.model_fields}
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in known:
            advice = meant_or(variable, known, f"known: {', '.join(sorted(known))}")
            raise SettingsError(f"unknown environment variable {variable}; {advice}")


def _load(kind: type[_Kind], options: dict[str, Any], origins: Mapping[str, str] = MappingProxyType({})) -> _Kind:
    """origins: by setting, the prefix of the message if its value is out of bounds."""
    _refuse_unknown_variables()
    try:
        return kind(**options)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        if name not in kind.model_fields:
            advice = meant_or(name, kind.model_fields, f"known: {', '.join(kind.model_fields)}")
            raise SettingsError(f"unknown setting {name!r}; {advice}") from error
        raise SettingsError(origins.get(name, "") + _value_message(kind.model_fields[name], name, first)) from error
    except SettingsParseError as error:
        raise SettingsError(_json_message(kind, error)) from error
