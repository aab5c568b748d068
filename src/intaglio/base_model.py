"""One base model outside the engine: its path, config and tokenizer, its engine's spec, and the requests for it.

Joins `text` and `model`; `LLM` and `AsyncLLM` are built on it.
"""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from intaglio.engine.engine import EngineLimits
from intaglio.engine.memory.machine import kv_format, quantized_in_memory
from intaglio.engine.protocol import EngineSpec
from intaglio.errors import BadInputError, ContextLengthError, ModelFormatError
from intaglio.files.json_object import read_json_object
from intaglio.lora.packing import AdapterDtype
from intaglio.model.config import ModelConfig, is_multimodal
from intaglio.model.loader import holds_quantized, read_config
from intaglio.model.packing.embedded_files import extract_files
from intaglio.model.pretrained import is_pretrained
from intaglio.model.weights import open_checkpoint
from intaglio.model.weights.checkpoint import PackedContents
from intaglio.model.weights.packed_model import is_packed_model
from intaglio.model_source import local_model_path, model_sources
from intaglio.request import EngineRequest, Priority, SamplingParams, ScaledAdapter, canonical_mix
from intaglio.settings import Settings
from intaglio.text import (
    GEMMA_TEMPLATE,
    ChatFormat,
    Tokenizer,
    TokenizerConfig,
    load_tokenizer,
    open_chat_format,
    read_tokenizer_config,
    render_prompt,
    token_table_file,
)

_MAX_GENERATION_CONFIG_BYTES = 1 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A checkpoint that was opened and checked, and its tokenizer; no weights are loaded.

    chat          how messages become a prompt: Gemma's turn format, or the checkpoint's own template
    chat_template  the text of a template that writes the same: the checkpoint's, or one of Gemma's turns
    is_quantized  whether the checkpoint's matrices are quantized, whatever format the settings load them in
    is_pretrained  whether it is known to be pre-trained only: it continues texts, and was never trained to answer
    """

    path: Path
    config: ModelConfig
    tokenizer: Tokenizer
    chat: ChatFormat
    chat_template: str
    is_quantized: bool
    is_pretrained: bool

    @classmethod
    def open(cls, path: Path, settings: Settings) -> BaseModel:
        """Open and check a checkpoint. Raises ModelFormatError naming what is missing or cannot be used."""
        if not path.exists():
            raise ModelFormatError(f"{path} does not exist")
        with open_checkpoint(path) as checkpoint:
            config = read_config(checkpoint)
            is_quantized = holds_quantized(checkpoint)
            metadata = checkpoint.raw_config if checkpoint.source == "gguf" else None
            files = path
            if checkpoint.packed is not None:  # its embedded files are read like the files of a folder
                files = _extracted(path, checkpoint.packed, settings.cache_path / "unpacked")
            if is_multimodal(checkpoint.raw_config):
                logger.info("%s is a multimodal model; its text part is served", path)
        eos_ids = sorted({*config.eos_ids, *_generation_eos_ids(files)})
        source = _tokenizer_source(files, settings)
        chat_files = read_tokenizer_config(files, metadata)
        name = None if metadata is None else metadata.get("general.name")
        pretrained = is_pretrained(
            path, stored_name=name if isinstance(name, str) else None, has_template=chat_files.template is not None
        )
        if source != files:
            chat_files = chat_files.completed(_borrowed_config(source))
        tokenizer = load_tokenizer(
            source,
            cache_dir=settings.cache_path / "tokenizers",
            checkpoint_metadata=metadata if source == files else None,
            eos_ids=eos_ids,
            eos_token=chat_files.special_tokens.get("eos_token"),
            num_rows=config.vocab_size,
        )
        if tokenizer.vocab_size > config.vocab_size:
            raise ModelFormatError(
                f"{source}: the tokenizer has {tokenizer.vocab_size} tokens, the model's embedding {config.vocab_size}"
            )
        chat = open_chat_format(
            chat_files.template, chat_files.special_tokens, tokenizer, takes_system=config.family == "gemma3"
        )
        template = GEMMA_TEMPLATE if chat_files.template is None else chat_files.template.text
        return cls(path, config, tokenizer, chat, template, is_quantized, pretrained)

    def engine_spec(self, settings: Settings) -> EngineSpec:
        """What the engine process needs to load and run this model. Without `kv_cache_bytes` in the settings (see
        `plan_for_machine`) the KV cache has the size of `EngineLimits`.
        """
        return EngineSpec(
            model_path=str(self.path),
            packed_dir=str(settings.cache_path / "packed"),
            format=settings.format,
            kernels=settings.kernels,
            threads=settings.threads,
            context_window=settings.context_window,
            limits=EngineLimits(
                max_running=settings.max_running,
                step_tokens=settings.step_tokens,
                kv_block_size=settings.kv_block_size,
                kv_cache_bytes=settings.kv_cache_bytes or EngineLimits().kv_cache_bytes,
                kv_format=kv_format(settings, self.is_quantized),
                prefix_cache=settings.prefix_cache,
            ),
            stop_ids=sorted(self.tokenizer.stop_ids),
            vocab_size=self.tokenizer.vocab_size,
            token_table=str(token_table_file(self.tokenizer, settings.cache_path / "tokenizers")),
            adapter_dtype=self._adapter_dtype(settings),
            adapter_cache_bytes=settings.adapter_cache_bytes,
            max_adapter_rank=settings.max_adapter_rank,
            max_adapter_file_bytes=settings.max_adapter_file_bytes,
            log_level=settings.log_level,
        )

    def _adapter_dtype(self, settings: Settings) -> AdapterDtype:
        """float16 beside quantized weights, whose rounding is larger; float32 beside unquantized ones."""
        match settings.adapter_format:
            case "f32":
                return "float32"
            case "f16":
                return "float16"
            case "int8":
                return "int8"
        return "float16" if quantized_in_memory(settings, self.is_quantized) else "float32"

    def render_prompt(self, prompt: str, *, raw: bool) -> list[int]:
        """Token ids of a prompt: unchanged if raw, else as one user turn. Begins with one BOS."""
        return render_prompt(prompt, self.tokenizer, raw, self.chat)

    def render_messages(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final: bool = False,
    ) -> list[int]:
        """Token ids of a chat, by default ready for the model's turn; the options are those of `ChatFormat.render`.

        Raises ChatError naming the message.
        """
        return self.chat.render(messages, add_generation_prompt=add_generation_prompt, continue_final=continue_final)


def make_request(
    prompt_ids: list[int],
    params: SamplingParams,
    adapters: Sequence[ScaledAdapter],
    window: int,
    vocab_size: int,
    priority: Priority = Priority.INTERACTIVE,
    cache_salt: str | None = None,
) -> EngineRequest:
    """Check length, token ids and adapters, and build the engine's request with a seed.

    Raises ContextLengthError or BadInputError, also for adapters (`canonical_mix`). A grammar is not checked here,
    because that may take long: see `grammar.check_grammar`.
    """
    if not prompt_ids:
        raise BadInputError("the prompt has no tokens")
    _check_ids("the prompt", prompt_ids, vocab_size)
    _check_ids("logit_bias", params.logit_bias, vocab_size)
    _check_ids("stop_token_ids", params.stop_token_ids, vocab_size)
    params = _within_window(params, len(prompt_ids), window)
    if params.seed is None:
        params = msgspec.structs.replace(params, seed=secrets.randbits(63))
    return EngineRequest(uuid.uuid4().hex, prompt_ids, params, canonical_mix(adapters), priority, cache_salt)


def _within_window(params: SamplingParams, num_prompt: int, window: int) -> SamplingParams:
    """The parameters with a max_tokens that the window has room for. Raises ContextLengthError."""
    wanted = max(params.min_tokens, 1) if params.max_tokens is None else params.max_tokens
    if num_prompt + wanted > window:
        raise ContextLengthError(num_prompt, wanted, window)
    return msgspec.structs.replace(params, max_tokens=window - num_prompt) if params.max_tokens is None else params


def _check_ids(what: str, ids: Collection[int], vocab_size: int) -> None:
    wrong = next((token_id for token_id in ids if not 0 <= token_id < vocab_size), None)
    if wrong is not None:
        raise BadInputError(f"{what} has token id {wrong}, outside the vocabulary of {vocab_size} tokens")


def _extracted(path: Path, contents: PackedContents, parent: Path) -> Path:
    try:
        return extract_files(contents, parent)
    except OSError as error:
        raise ModelFormatError(
            f"the config and tokenizer of {path} cannot be written to {parent}: {error.strerror}"
        ) from error


def _tokenizer_source(path: Path, settings: Settings) -> Path:
    """The path of the model's own tokenizer, or, if a folder has none, of the one that the settings name."""
    has_own = path.is_file() or any(any(path.glob(name)) for name in ("tokenizer.json", "tokenizer.model", "*.gguf"))
    if has_own:
        return path
    if settings.tokenizer is None:
        raise ModelFormatError(
            f"{path} has no tokenizer.json or tokenizer.model; give --tokenizer <id of a served model, or path>"
        )
    source = local_model_path(model_sources(settings.model).get(settings.tokenizer, settings.tokenizer), settings)
    if not is_packed_model(source):
        return source
    with open_checkpoint(source) as checkpoint:
        assert checkpoint.packed is not None, "a packed file was opened"
        return _extracted(source, checkpoint.packed, settings.cache_path / "unpacked")


def _borrowed_config(source: Path) -> TokenizerConfig:
    """The chat template and special tokens of another model, whose tokenizer is used."""
    if source.suffix != ".gguf":
        return read_tokenizer_config(source, None)
    with open_checkpoint(source) as other:
        return read_tokenizer_config(source, other.raw_config)


def _generation_eos_ids(path: Path) -> list[int]:
    """End tokens that a Hugging Face folder names in generation_config.json, besides those of config.json."""
    file = path / "generation_config.json"
    if not path.is_dir() or not file.is_file():
        return []
    eos = read_json_object(file, _MAX_GENERATION_CONFIG_BYTES, str(file), ModelFormatError).get("eos_token_id")
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(isinstance(token_id, int) for token_id in ids):
        raise ModelFormatError(f"{file}: eos_token_id is {eos!r}; a whole number or a list of them is needed")
    return ids
