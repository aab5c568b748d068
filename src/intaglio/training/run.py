"""A whole run: check, read, load, evaluate, train, evaluate, save."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from intaglio.base_model import BaseModel
from intaglio.errors import TrainingError, TrainingInterruptedError
from intaglio.training.base import add_adapter, load_base
from intaglio.training.data import Example, Split, read_examples, split_examples
from intaglio.training.dtypes import BASE_DTYPES, BaseDtype, ChosenDtype, faster_dtype, measure_speeds
from intaglio.training.encode import Tokens, encode_all
from intaglio.training.evaluate import evaluate
from intaglio.training.loop import Pace, num_steps, run_steps
from intaglio.training.memory import Available, BatchShape, check_memory, memory_need
from intaglio.training.options import TrainingOptions, check_options
from intaglio.training.report import Evaluation, Report
from intaglio.training.save import CARD_FILE, make_folder, round_to_saved, save_adapter, save_card

PACKAGES = ("torch", "transformers", "peft", "accelerate")  # of the extra `train`
_DEFAULT_MAX_LENGTH = 1024  # tokens: enough for most examples, and few enough for the memory of most machines


def check_installed() -> None:
    """Look for the packages without importing them. Raises TrainingError that says how to install them."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs {', '.join(missing)}, not installed here: run `pip install torch==2.13.0` first and "
            "alone (so that pip takes the build for the CPU where one is offered), then `pip install 'intaglio[train]'`"
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a run. before, after: evaluations, None if no example was held out; dtype: of the base."""

    folder: Path
    steps: int
    pace: Pace
    dtype: BaseDtype
    before: Evaluation | None
    after: Evaluation | None


@dataclass(frozen=True, slots=True)
class _Data:
    sha256: str  # of options.data
    training: list[Tokens]
    held_out: list[Tokens]


class _Output:
    """Writes the adapter to `options.out`. As a string: what the folder has of this run."""

    def __init__(self, options: TrainingOptions, steps: int) -> None:
        self._options = options
        self._steps = steps
        self._after = 0

    def write(self, model: Any, after: int) -> None:
        (self._options.out / CARD_FILE).unlink(missing_ok=True)  # an earlier run's card would describe another adapter
        save_adapter(model, self._options.out, self._options.base_name)
        self._after = after

    def __str__(self) -> str:
        if not self._after:
            first = min(self._options.checkpoint_every, self._steps)
            return f"{self._options.out} has no adapter of this run; the first checkpoint comes after step {first}"
        return f"{self._options.out} has the adapter of step {self._after} of {self._steps}"


def train(options: TrainingOptions, base: BaseModel, report: Report, available: Available | None = None) -> Trained:
    """Train an adapter and write it to `options.out`.

    available  the memory that may be used; None for no bound
    Raises TrainingDataError, TrainingError, ModelFormatError or NotEnoughMemoryError. Ctrl-C ends it as
    TrainingInterruptedError, which says what the folder holds.
    """
    check_options(options)
    data = _read_data(options, base, report)
    steps = num_steps(options, len(data.training))
    make_folder(options.out)
    written = _Output(options, steps)
    try:
        return _train(options, base, report, data, steps, written, available or Available())
    except KeyboardInterrupt:
        raise TrainingInterruptedError(f"stopped; {written}") from None


def _train(
    options: TrainingOptions,
    base: BaseModel,
    report: Report,
    data: _Data,
    steps: int,
    written: _Output,
    available: Available,
) -> Trained:
    dtype = _set_up_torch(options, base, report, data, available)
    model = _prepare(options, base, report, dtype)
    before = _evaluate(model, data, options, report, "before")
    model.train()
    report.begin(steps)
    try:
        pace = run_steps(model, data.training, options, steps, report, lambda after: written.write(model, after))
    except TrainingError as error:
        raise TrainingError(f"{error}; {written}") from error
    finally:
        report.end()
    report.note(f"trained on {pace}")
    round_to_saved(model)
    after = _evaluate(model, data, options, report, "after")
    save_card(options.out, _card(options, data, steps, dtype, before, after))
    return Trained(options.out, steps, pace, dtype, before, after)


def _read_data(options: TrainingOptions, base: BaseModel, report: Report) -> _Data:
    read = read_examples(options.data)
    split = _split(read.examples, options)
    max_length = _max_length(options, base)

    def encoded(examples: list[Example], path: Path) -> list[Tokens]:
        if not examples:
            return []
        return encode_all(examples, base.tokenizer, base.chat, path, max_length, skip_long=options.skip_long)

    training = encoded(split.training, options.data)
    data = _Data(read.sha256, training, encoded(split.held_out, options.eval_data or options.data))
    longest = max(len(tokens.ids) for tokens in data.training)
    report.note(
        f"{len(data.training)} examples to train on, the longest has {longest} tokens; {len(data.held_out)} held out"
    )
    num_skipped = len(split.training) + len(split.held_out) - len(data.training) - len(data.held_out)
    if num_skipped:
        report.note(f"{num_skipped} examples longer than {max_length} tokens are left out")
    asked = {example.question for example in split.training}
    num_known = sum(example.question in asked for example in split.held_out)
    if num_known:
        report.note(f"{num_known} held-out examples repeat questions of the training data: they measure memorization")
    return data


def _split(examples: list[Example], options: TrainingOptions) -> Split:
    if options.eval_data is None:
        split = split_examples(examples, options.held_out, options.seed, options.data, options.max_evaluated)
    else:
        split = Split(examples, read_examples(options.eval_data).examples)
    if len(split.held_out) <= options.max_evaluated:
        return split
    return split._replace(held_out=random.Random(options.seed).sample(split.held_out, options.max_evaluated))


def _max_length(options: TrainingOptions, base: BaseModel) -> int:
    window = base.config.context_length
    if options.max_length is None:
        return min(_DEFAULT_MAX_LENGTH, window)
    if options.max_length > window:
        raise TrainingError(f"--max-length is {options.max_length}; the model's context window is {window}")
    return options.max_length


def _set_up_torch(
    options: TrainingOptions, base: BaseModel, report: Report, data: _Data, available: Available
) -> BaseDtype:
    """Set seed and threads as requested, and choose the dtype of the base."""
    import torch

    torch.manual_seed(options.seed)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    chosen = _choose_dtype(options, base, data, available)
    report.note(f"the base computes in {chosen.name} ({chosen.reason})")
    return chosen.name


def _choose_dtype(options: TrainingOptions, base: BaseModel, data: _Data, available: Available) -> ChosenDtype:
    """The requested dtype or, for `auto`, the fastest that fits. Raises NotEnoughMemoryError if none does."""
    rows = min(options.batch_size, len(data.training))
    shape = BatchShape(rows, max(len(tokens.ids) for tokens in [*data.training, *data.held_out]))
    need = {dtype: memory_need(base.config, options, shape, dtype) for dtype in BASE_DTYPES}
    requested = next((dtype for dtype in BASE_DTYPES if dtype == options.dtype), None)
    if requested is not None:
        check_memory(need[requested], available, requested, shape)
        return ChosenDtype(requested, "as --dtype says")
    fitting = [dtype for dtype in BASE_DTYPES if need[dtype].total <= available.size_bytes]
    if len(fitting) == len(BASE_DTYPES):
        return faster_dtype(measure_speeds(base.config))
    chosen: BaseDtype = fitting[0] if fitting else "bfloat16"
    check_memory(need[chosen], available, chosen, shape)
    other: BaseDtype = "bfloat16" if chosen == "float32" else "float32"
    sizes = f"{need[other].total / 1e9:.2f} GB, and {available.size_bytes / 1e9:.2f} GB are available"
    return ChosenDtype(chosen, f"with {other} the training would need {sizes}: {available.bound}")


def _prepare(options: TrainingOptions, base: BaseModel, report: Report, dtype: BaseDtype) -> Any:
    """The base with a fresh adapter, a PeftModel."""
    import torch

    model = add_adapter(load_base(base.path, dtype), options)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    report.note(f"{trained:,} parameters to train, of rank {options.rank}, on {torch.get_num_threads()} threads")
    return model


def _evaluate(model: Any, data: _Data, options: TrainingOptions, report: Report, when: str) -> Evaluation | None:
    if not data.held_out:
        return None
    report.note(f"evaluating on {len(data.held_out)} held-out examples")  # it may take a while
    model.eval()
    evaluation = evaluate(model.get_base_model(), data.held_out, options.batch_size)
    report.evaluated(when, evaluation)
    return evaluation


def _card(
    options: TrainingOptions,
    data: _Data,
    steps: int,
    dtype: BaseDtype,
    before: Evaluation | None,
    after: Evaluation | None,
) -> dict[str, Any]:
    """The content of card.json: the same run has the same card."""
    import torch

    return {
        "name": options.out.name,
        "base": options.base_name,
        "data": {
            "file": options.data.name,
            "sha256": data.sha256,
            "examples": len(data.training),
        },
        "held_out": {
            when: asdict(evaluation) for when, evaluation in (("before", before), ("after", after)) if evaluation
        },
        "steps": steps,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "training": options.command,
    }
