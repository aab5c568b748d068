"""From paths and settings to the subjects of a run, after checking that they fit into this machine's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from intaglio.base_model import BaseModel
from intaglio.engine.core_process import make_ops
from intaglio.engine.memory.available import AvailableMemory, available_memory
from intaglio.engine.memory.machine import kv_format
from intaglio.engine.memory.plan import format_mb
from intaglio.errors import EvaluationError, NotEnoughMemoryError
from intaglio.evaluation.evaluate import LOGIT_BYTES, TokenizedText, Windowing
from intaglio.evaluation.memory import PROGRAM_BYTES, add_footprints, cache_bytes, footprint
from intaglio.evaluation.subject import Subject
from intaglio.evaluation.texts import Text
from intaglio.lora.packing import pack_tensors
from intaglio.lora.peft.base_tables import checkpoint_tables
from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.gemma import Gemma
from intaglio.model.loader import load_gemma
from intaglio.ops import AdapterWeights, KVFormat, Ops
from intaglio.settings import Settings


@dataclass(frozen=True, slots=True)
class Choice:
    """One side of a run as the user names it. Formats are those of its settings; name: of the model, for labels."""

    base: BaseModel
    settings: Settings
    name: str
    adapter: Path | None = None

    @property
    def kv_format(self) -> KVFormat:
        """How keys and values are held, as a server would hold them."""
        return kv_format(self.settings, self.base.is_quantized)


@dataclass(frozen=True, slots=True)
class Subjects:
    """reference: None if nothing is compared."""

    evaluated: Subject
    reference: Subject | None


def tokenize(texts: Sequence[Text], choices: Sequence[Choice]) -> list[TokenizedText]:
    """The texts' token ids. Raises EvaluationError if the models of a comparison have different ones."""
    first, *others = choices
    found = [TokenizedText(text.name, first.base.tokenizer.encode(text.content)) for text in texts]
    for other in others:
        ours, theirs = first.base.tokenizer, other.base.tokenizer
        if ours.digest == theirs.digest:
            continue
        same = all(theirs.encode(text.content) == one.ids for text, one in zip(texts, found, strict=True))
        if not same or ours.vocab_size != theirs.vocab_size:
            raise EvaluationError(
                f"{first.name} and {other.name} have different tokenizers ({ours.vocab_size} and {theirs.vocab_size} "
                "tokens): their distributions cannot be compared"
            )
    return found


def load_subjects(
    evaluated: Choice, reference: Choice | None, windowing: Windowing, available: AvailableMemory | None = None
) -> Subjects:
    """Load both sides; a model that both share is loaded once.

    available  None asks the machine
    Raises NotEnoughMemoryError with the sum, ModelFormatError, AdapterError for an adapter that does not fit.
    """
    choices = [evaluated] if reference is None else [evaluated, reference]
    ops = make_ops(evaluated.settings.kernels, evaluated.settings.threads)
    _check_memory(choices, windowing, ops, available or available_memory())
    models: dict[tuple[Path, str], Gemma] = {}
    subjects = [_subject(choice, models, ops) for choice in choices]
    return Subjects(subjects[0], subjects[1] if len(subjects) > 1 else None)


def _subject(choice: Choice, models: dict[tuple[Path, str], Gemma], ops: Ops) -> Subject:
    path, settings = choice.base.path, choice.settings
    model = models.get(_identity(choice))
    if model is None:
        model = load_gemma(path, ops, settings.format, packed_dir=settings.cache_path / "packed")
        models[_identity(choice)] = model
    kv = "" if settings.kv_format == "auto" else f", KV {settings.kv_format}"
    label = f"{choice.name} ({settings.format}{kv})"
    if choice.adapter is None:
        return Subject(label, model, ops, kv_format=choice.kv_format)
    adapter = _adapter(choice, choice.adapter, model)
    return Subject(f"{label} + {choice.adapter.name}", model, ops, adapter, choice.kv_format)


def _adapter(choice: Choice, folder: Path, model: Gemma) -> AdapterWeights:
    """The adapter in the number type in which it would be served."""
    settings = choice.settings
    limits = AdapterLimits(
        max_rank=settings.max_adapter_rank,
        max_file_bytes=settings.max_adapter_file_bytes,
        max_memory_bytes=settings.adapter_cache_bytes,
    )
    adapter = read_peft_adapter(folder, model.config, limits, checkpoint_tables(choice.base.path))
    dtype = choice.base.engine_spec(settings).adapter_dtype
    return model.prepare_adapter(pack_tensors(adapter.tensors, dtype))


def _identity(choice: Choice) -> tuple[Path, str]:
    return choice.base.path.resolve(), choice.settings.format


def _check_memory(choices: Sequence[Choice], windowing: Windowing, ops: Ops, available: AvailableMemory) -> None:
    """Raise NotEnoughMemoryError if the weights of all models, their caches and their logits do not fit."""
    models = {_identity(choice): choice for choice in choices}.values()
    weights = add_footprints(
        footprint(choice.base.path, choice.settings, choice.settings.format, ops.layout, uses_packed=True)
        for choice in models
    )
    caches = sum(cache_bytes(choice.base.config, windowing.context_length, choice.kv_format) for choice in choices)
    needed = weights.weights + weights.loading + caches + 2 * len(choices) * LOGIT_BYTES + PROGRAM_BYTES
    if needed > available.size_bytes:
        raise NotEnoughMemoryError(
            f"not enough memory: {format_mb(needed)} needed, {format_mb(available.size_bytes)} available "
            f"({available.bound}): weights {format_mb(weights.weights)} (--format, --against-format), loading them "
            f"{format_mb(weights.loading)}, keys and values {format_mb(caches)} (--context-length)"
        )
