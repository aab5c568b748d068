"""Which checkpoints are pre-trained only: they continue a text, and were never trained to answer.

A checkpoint does not say so. It is known of one that has the name under which Google publishes a pre-trained Gemma, and
no chat template. Every other checkpoint, such as a finetune of one, counts as trained to answer.
"""

from __future__ import annotations

import re
from pathlib import Path

_GEMMA_1_AND_2 = r"gemma-(2b|7b|2-2b|2-9b|2-27b)"
_GEMMA_3 = r"gemma-3-(270m|(1b|4b|12b|27b)-pt)"  # the larger ones have a suffix for each kind
_FILE_TYPE = r"(i?q\d|[01kmslx]|xs|xl|b?f16|f32|qat)"  # how its weights are stored: the parts of q4-k-m
_PUBLISHED = re.compile(rf"({_GEMMA_1_AND_2}|{_GEMMA_3})(-{_FILE_TYPE})*")
_OF_HUB = "models--"  # + OWNER--NAME: a folder of the hub's cache
_OF_GOOGLE = _OF_HUB + "google--"


def is_pretrained(path: Path, *, stored_name: str | None, has_template: bool) -> bool:
    """Whether a checkpoint is known to be pre-trained only.

    path          its file or folder
    stored_name   the name that a GGUF file has in itself (`general.name`), which counts before the path's
    has_template  whether a chat template came with it
    """
    return not has_template and any(_PUBLISHED.fullmatch(name) for name in _names(path, stored_name))


def _names(path: Path, stored_name: str | None) -> list[str]:
    if stored_name is not None:
        return [_plain(stored_name)]
    of_hub = [part.removeprefix(_OF_GOOGLE) for part in path.parts if part.startswith(_OF_HUB)]
    return [_plain(name) for name in of_hub or [path.stem if path.is_file() else path.name]]


def _plain(name: str) -> str:
    """`Gemma 3 1b Pt` is `gemma-3-1b-pt`."""
    return re.sub(r"[\s_.-]+", "-", name.strip().lower().removeprefix("google/"))
