"""A GGUF model in several files: `NAME-00001-of-00003.gguf` and so on, as llama.cpp's gguf-split writes them.

The first part has the metadata of the model; each part has some of its tensors. Source: tools/gguf-split of llama.cpp.
"""

from __future__ import annotations

import re
from pathlib import Path

from intaglio.errors import ModelFormatError
from intaglio.model.weights.formats import RawTensor
from intaglio.model.weights.gguf import GgufFile, read_gguf

_PART_NAME = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.gguf")
_MAX_NAMED = 5


def part_paths(path: Path) -> list[Path]:
    """All parts, in order, of the model that a .gguf file belongs to; the file alone if its name is not that of a part.

    The other parts need not exist.
    """
    found = _PART_NAME.fullmatch(path.name)
    if found is None:
        return [path]
    count = found["count"]
    paths = [path.with_name(f"{found['stem']}-{number:05}-of-{count}.gguf") for number in range(1, int(count) + 1)]
    return paths if path in paths else [path]  # as -00004-of-00003 is not


def read_gguf_model(path: Path) -> GgufFile:
    """Read a GGUF file with all other parts of its model. path: any part.

    Raises ModelFormatError naming the part that is missing or does not belong to the others.
    """
    paths = part_paths(path)
    missing = [part.name for part in paths if not part.is_file()]
    if path.is_file() and missing:
        names = ", ".join(missing[:_MAX_NAMED]) + (", ..." if len(missing) > _MAX_NAMED else "")
        raise ModelFormatError(f"{path} is one of {len(paths)} parts; missing: {names}")
    parts = [read_gguf(part) for part in paths]
    for number, part in enumerate(parts):
        _check_place(part, number, len(parts))
    tensors: dict[str, RawTensor] = {}
    for part in parts:
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise ModelFormatError(f"{part.path}: tensor {min(twice)!r} is in an earlier part too")
        tensors |= part.tensors
    expected = parts[0].metadata.get("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise ModelFormatError(
            f"{path}: its parts have {len(tensors)} tensors, and the first says {expected} (split.tensors.count)"
        )
    return GgufFile(parts[0].path, parts[0].metadata, tensors)


def _check_place(part: GgufFile, number: int, count: int) -> None:
    """Whether a file's metadata say that it is part `number`, from 0, of `count`."""
    found_count = part.metadata.get("split.count", 0)
    if count == 1 and found_count in (0, 1):
        return
    if count == 1:
        raise ModelFormatError(
            f"{part.path} is one of {found_count} parts (split.count), and its name does not say which: "
            f"name them NAME-00001-of-{found_count:05}.gguf and so on"
        )
    found_number = part.metadata.get("split.no")
    if (found_number, found_count) != (number, count):
        raise ModelFormatError(
            f"{part.path}: by its name it is part {number + 1} of {count}; its metadata say split.no {found_number} "
            f"(from 0), split.count {found_count}"
        )
