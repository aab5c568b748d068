"""Every option of a training run, with its bounds; `intaglio train` has an option for each."""

# ruff: noqa: RUF009  `_option` returns a dataclass field
from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from intaglio.errors import TrainingError

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DTYPES = ("auto", "float32", "bfloat16")
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def _option(
    default: Any, text: str, least: float | None = None, most: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """A field with its help and, for a number, its bounds or, for a word, its choices."""
    return field(default=default, metadata={"help": text, "least": least, "most": most, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What is trained, on what data, and how. `check_options` checks the bounds.

    data       JSONL of examples
    out        folder for the adapter
    base_name  the base's name in the adapter's files
    command    the command line, for the card
    """

    data: Path
    out: Path
    base_name: str
    command: str = ""

    steps: int | None = _option(None, "batches to train on, instead of --epochs", 1, 10**6)
    epochs: float | None = _option(None, "passes over the examples [default: 3]", 0.01, 10**4)
    batch_size: int = _option(8, "examples in a batch", 1, 1024)
    learning_rate: float = _option(5e-4, "its peak, after a linear warm-up; then it falls to a tenth", 1e-9, 1)
    rank: int = _option(8, "LoRA's rank", 1, 256)
    alpha: float | None = _option(None, "LoRA's alpha [default: twice the rank]", 1e-6, 10**6)
    targets: tuple[str, ...] = _option(LINEAR_LAYERS, "linear layers that are adapted, with commas between them")
    rslora: bool = _option(False, "scale by alpha / sqrt(rank) instead of alpha / rank")
    dora: bool = _option(False, "train the length of each output's weights apart from their direction")
    dropout: float = _option(0.0, "part of the adapter's inputs that is left out at random", 0, 0.9)
    max_length: int | None = _option(
        None, "most tokens of an example, prompt and answers together [default: 1024, or the window]", 16, 10**6
    )
    skip_long: bool = _option(False, "leave out longer examples, which are otherwise an error")
    held_out: float = _option(
        0.1, "part of the examples that is evaluated and not trained on; 0: no evaluation", 0, 0.9
    )
    eval_data: Path | None = _option(None, "JSONL of examples to evaluate, instead of --held-out")
    max_evaluated: int = _option(200, "most examples to evaluate, chosen at random", 1, 10**6)
    shortlist: int = _option(
        0, "loss over the data's tokens and this many common ones, which is faster; 0: over all", 0, 2**22
    )
    checkpoint_every: int = _option(50, "steps after which the adapter is written again", 1, 10**6)
    seed: int = _option(0, "same seed, threads, dtype and machine: same adapter", 0, 2**63 - 1)
    threads: int | None = _option(None, "threads that compute [default: one per core]", 1, 256)
    dtype: str = _option(
        "auto", "float32, bfloat16, or auto: what the base computes in; auto measures which is faster", choices=DTYPES
    )
    overwrite: bool = _option(False, "replace an adapter that is already in the folder")


def check_options(options: TrainingOptions) -> None:
    """Raises TrainingError naming the first option that is out of bounds."""
    for one in fields(options):
        value, least, most = getattr(options, one.name), one.metadata.get("least"), one.metadata.get("most")
        if least is not None and value is not None and not least <= value <= most:
            raise TrainingError(f"--{one.name.replace('_', '-')} is {value}; from {least} to {most} is allowed")
        choices = one.metadata.get("choices")
        if choices and value not in choices:
            raise TrainingError(f"--{one.name.replace('_', '-')} is {value!r}; one of {', '.join(choices)} is allowed")
    if options.steps is not None and options.epochs is not None:
        raise TrainingError(f"--steps {options.steps} and --epochs {options.epochs:g} are both given; one is needed")
    unknown = sorted(set(options.targets) - set(LINEAR_LAYERS))
    if unknown or not options.targets:
        named = ", ".join(unknown) or "nothing"
        raise TrainingError(f"--targets names {named}; the linear layers are {', '.join(LINEAR_LAYERS)}")
    _check_folder(options)


def _check_folder(options: TrainingOptions) -> None:
    if options.out.exists() and not options.out.is_dir():
        raise TrainingError(f"--out {options.out} is a file; a folder is needed")
    there = [name for name in ADAPTER_FILES if (options.out / name).exists()]
    if there and not options.overwrite:
        raise TrainingError(f"--out {options.out} has {there[0]} already; use another folder or add --overwrite")
