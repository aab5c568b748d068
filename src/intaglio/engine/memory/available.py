"""How much memory this process and its children may still allocate: the least of three bounds.

    the machine         MemAvailable: free pages and those the kernel can take back at once; half of the memory outside
                        Linux, where the standard library tells how much there is and not how much is free
    the control group   its limit less its usage, in version 1 and 2, for the group and every group above it
    the process         RLIMIT_AS and RLIMIT_DATA (`ulimit -v`, `ulimit -d`)

A control group's usage includes the page cache, which the kernel drops before it kills a process. So pages of files
count as free here; otherwise a container that has just copied a model would seem full.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_UNLIMITED_V1 = 1 << 60  # version 1 writes "no limit" as a huge number


@dataclass(frozen=True, slots=True)
class AvailableMemory:
    """bound: which limit it is, for messages; counts_mappings: whether mapped files count against it."""

    size_bytes: int
    bound: str
    counts_mappings: bool = False


def _physical_bytes() -> int:
    """Bytes of memory in this machine, 0 if the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def available_memory(
    root: Path = Path("/"),
    limit_of: Callable[[int], tuple[int, int]] = resource.getrlimit,
    physical_bytes: Callable[[], int] = _physical_bytes,
) -> AvailableMemory:
    """The tightest bound, or no limit where nothing can be read.

    root, limit_of, physical_bytes  where /proc and /sys are, how limits of the process and the size of the memory are
                                    read, for tests
    """
    bounds = [*_machine_bound(root, physical_bytes), *_control_group_bounds(root), *_process_bounds(root, limit_of)]
    return min(bounds, key=lambda one: one.size_bytes, default=AvailableMemory(sys.maxsize, "no limit is known"))


def _machine_bound(root: Path, physical_bytes: Callable[[], int]) -> Iterator[AvailableMemory]:
    available_kib = _read_fields(root / "proc/meminfo").get("MemAvailable:")
    if available_kib is not None:
        yield AvailableMemory(available_kib * 1024, "memory of this machine that is free")
    elif physical := physical_bytes():
        yield AvailableMemory(physical // 2, "half of this machine's memory; the system does not say how much is free")


def _control_group_bounds(root: Path) -> Iterator[AvailableMemory]:
    """Lines of /proc/self/cgroup are `0::/path` (version 2) or `4:memory:/path`, the controllers with commas."""
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            folder, files = root / "sys/fs/cgroup", ("memory.max", "memory.current", "")
        elif "memory" in controllers.split(","):
            folder, files = (
                root / "sys/fs/cgroup/memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
            )
        else:
            continue
        # Inside a container the path may be the host's, of which only the root is visible.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            yield from _control_group_bound(folder / str(group).lstrip("/"), *files)


def _control_group_bound(folder: Path, limit_file: str, usage_file: str, prefix: str) -> Iterator[AvailableMemory]:
    limit, usage = _read_text(folder / limit_file).strip(), _read_text(folder / usage_file).strip()
    if not (limit.isdigit() and usage.isdigit()) or int(limit) >= _UNLIMITED_V1:
        return  # no such group, or "max": no limit
    pages = _read_fields(folder / "memory.stat")
    cached = sum(pages.get(f"{prefix}{kind}_file", 0) for kind in ("active", "inactive"))
    yield AvailableMemory(max(0, int(limit) - int(usage) + cached), "memory limit of the control group")


def _process_bounds(root: Path, limit_of: Callable[[int], tuple[int, int]]) -> Iterator[AvailableMemory]:
    """What this process uses now stands for what the engine process uses before it loads anything."""
    status = _read_fields(root / "proc/self/status")
    for name, used, counts_mappings in (("RLIMIT_AS", "VmSize:", True), ("RLIMIT_DATA", "VmData:", False)):
        limit = limit_of(getattr(resource, name))[0]
        if limit != resource.RLIM_INFINITY:
            left = max(0, limit - status.get(used, 0) * 1024)
            yield AvailableMemory(left, f"{name} of the process", counts_mappings)


def _read_fields(file: Path) -> dict[str, int]:
    """Lines of a name and a whole number, such as `MemAvailable:   24038976 kB`; other lines are left out."""
    rows = [line.split() for line in _read_text(file).splitlines()]
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _read_text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # not this version of control groups, or not Linux
        return ""
