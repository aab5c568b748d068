"""Git LFS pointers: a clone without `git lfs pull` has a small text in place of each large file."""

from __future__ import annotations

_BEGINNING = b"version https://git-lfs.github.com/spec/"
NUM_BYTES = len(_BEGINNING)  # that `is_lfs_pointer` needs

LFS_ADVICE = "this is a git-lfs pointer in place of the file; run git lfs pull"


def is_lfs_pointer(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes is a pointer."""
    return beginning.startswith(_BEGINNING)
