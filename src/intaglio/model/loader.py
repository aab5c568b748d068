"""From a path to a loaded Gemma: open the files, read the config, check every shape, prepare the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from intaglio.errors import ModelFormatError
from intaglio.model.config import ModelConfig, config_from_gguf, config_from_hf
from intaglio.model.gemma import Gemma
from intaglio.model.packed import PackedFile, packed_key
from intaglio.model.quantize import WeightFormat, format_of
from intaglio.model.weights import Checkpoint, check_shapes, open_checkpoint
from intaglio.model.weights.names import EMBEDDING, HEAD
from intaglio.ops import Ops

_TORCH_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def read_config(checkpoint: Checkpoint) -> ModelConfig:
    """The config of an open checkpoint, after checking that every tensor it requires is there, with the right shape.

    Raises ModelFormatError naming the key or tensor.
    """
    if EMBEDDING not in checkpoint.names():
        raise ModelFormatError(f"{checkpoint.path}: no tensor {EMBEDDING}")
    embedding = checkpoint.info(EMBEDDING)
    if checkpoint.source == "gguf":
        tied = "lm_head.weight" not in checkpoint.names()
        config = config_from_gguf(checkpoint.raw_config, embedding.shape[0], tied)
    else:
        config = config_from_hf(checkpoint.raw_config, _TORCH_NAMES[checkpoint.embedding_dtype])
    check_shapes(checkpoint, config.tensor_shapes())
    return config


def holds_quantized(checkpoint: Checkpoint) -> bool:
    """Whether any matrix of the checkpoint is stored in 8 bit or less."""
    stored = {checkpoint.info(name).dtype for name in checkpoint.names()}
    return any(format_of(dtype, "auto", is_table=False) in ("w8", "w5", "w4") for dtype in stored)


LoadProgress = Callable[[int, int], None]  # stored bytes that are quantized so far, and the total


def load_gemma(
    path: Path,
    ops: Ops,
    fmt: WeightFormat = "auto",
    *,
    packed_dir: Path | None = None,
    progress: LoadProgress = lambda done, total: None,
) -> Gemma:
    """Load a model with its matrices in the given format; see `quantize.format_of` for what `auto` means.

    packed_dir  where packed weights are stored for the next start; None stores none
    progress    called while weights are quantized; never if they come from `packed_dir`
    """
    # Made before the files are opened: if they are replaced in between, the key matches neither version.
    key = packed_key(path, fmt, ops.layout)
    with open_checkpoint(path) as checkpoint:
        config = read_config(checkpoint)
        packed = None if packed_dir is None else PackedFile(packed_dir, key)
        model = Gemma(config, checkpoint, ops, fmt, packed, _counter(checkpoint, fmt, progress))
    if packed is not None:
        packed.save()
    return model


def _counter(checkpoint: Checkpoint, fmt: WeightFormat, progress: LoadProgress) -> Callable[[int], None]:
    """A function that adds up the bytes of its calls and reports the sum to `progress`."""
    total = sum(
        checkpoint.raw(name).data.nbytes
        for name in checkpoint.names()
        if len(checkpoint.info(name).shape) == 2
        and format_of(checkpoint.info(name).dtype, fmt, is_table=name in (EMBEDDING, HEAD)) in ("w8", "w5", "w4")
    )
    done = 0

    def add(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        progress(done, total)

    return add
