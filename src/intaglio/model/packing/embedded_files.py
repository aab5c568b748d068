"""Writes the embedded files of a packed file into a folder, for code that reads files: tokenizer, chat template."""

from __future__ import annotations

import hashlib
from pathlib import Path

from intaglio.files.atomic_write import PRIVATE, atomic_write
from intaglio.model.weights.checkpoint import PackedContents


def extract_files(contents: PackedContents, parent: Path) -> Path:
    """The folder below `parent` with the files; the same for every packed file that has the same ones.

    Files that are there already with their content are left alone, so that caches made from them stay valid. Raises
    OSError if the folder cannot be written.
    """
    identity = hashlib.sha256()
    for name, content in sorted(contents.files.items()):
        identity.update(f"{name} {len(content)} ".encode() + hashlib.sha256(content).digest())
    folder = parent / identity.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            with atomic_write(path, mode=PRIVATE) as file:
                file.write(content)
    return folder
