"""`intaglio doctor`: what this machine has, and what would run on it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import typer

from intaglio.cli.json_output import AsJson, print_json
from intaglio.errors import IntaglioError, NotEnoughMemoryError
from intaglio.settings import DEFAULT_MODEL_ID, Settings, load_settings
from intaglio.version import __version__

# Weights in billions, of the text part: what the family's published checkpoints have.
_SIZES = {"270M": 0.27, "1B": 1.0, "2B": 2.5, "4B": 3.9, "7B": 8.5, "9B": 9.2, "12B": 11.8, "27B": 27.0}
_BYTES_PER_WEIGHT = {"w8": 1.07, "w4": 0.67}  # of a packed Gemma 7B, whose embedding has 8 bits in both
_ROOM = 1.15  # for a KV cache of a few thousand tokens and the working memory
_BUFFER_BYTES = 128 << 20  # for each core: larger than the caches of most
_PASSES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. ok: False is something that keeps `intaglio serve` from starting; what to do stands in `value`."""

    name: str
    value: str
    ok: bool = True


def doctor(
    port: Annotated[int | None, typer.Option(help="the port to look at [default: that of the settings]")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what this machine has, what would fit into it, and what would keep a server from starting.

    Example: intaglio doctor --json
    """
    findings = list(_findings(load_settings(**({} if port is None else {"port": port}))))
    if as_json:
        print_json([asdict(one) for one in findings])
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            lines = one.value.splitlines()
            print(f"{'ok ' if one.ok else 'NO '} {one.name:{width}}  {lines[0]}")
            for line in lines[1:]:
                print(f"{'':{width + 6}}{line}")
    if not all(one.ok for one in findings):
        raise typer.Exit(1)


def _findings(settings: Settings) -> Iterator[Finding]:
    yield Finding("version", f"intaglio {__version__}, Python {platform.python_version()} on {platform.platform()}")
    yield _kernels(settings)
    yield Finding("cores", f"{_cores()} for this process, {os.cpu_count()} in the machine")
    yield from _memory()
    yield Finding("memory bandwidth", f"{_bandwidth() / 1e9:.1f} GB/s read by {_cores()} threads")
    yield _default_model(settings)
    yield _data_folder(settings)
    yield _port(settings)


def _kernels(settings: Settings) -> Finding:
    try:
        from intaglio.ops.cpu import instruction_sets

        found = instruction_sets()
    except ImportError as error:
        return Finding("kernels", f"the extension module cannot be loaded: {error}; install the package again", False)
    chosen = found[0] if settings.kernels == "auto" else settings.kernels
    if chosen not in (*found, "reference"):
        return Finding("kernels", f"the settings ask for {chosen}; this machine has {', '.join(found)}", False)
    return Finding("kernels", f"{chosen}; there are {', '.join(found)}")


def _cores() -> int:
    """The cores that this process may use, also where the extension module, which `usable_cores` needs, is broken."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _memory() -> Iterator[Finding]:
    from intaglio.engine.memory.available import available_memory

    available = available_memory()
    if available.size_bytes == sys.maxsize:
        yield Finding("memory", available.bound)
        return
    yield Finding("memory", f"{available.size_bytes / 1e9:.1f} GB: {available.bound}")
    fitting = []
    for name, weights in _SIZES.items():
        formats = [
            fmt for fmt, size in _BYTES_PER_WEIGHT.items() if weights * 1e9 * size * _ROOM < available.size_bytes
        ]
        if formats:
            fitting.append(f"{name} ({' or '.join(formats)})")
    yield Finding("fits", f"Gemma {', '.join(fitting)}; estimated" if fitting else "no Gemma", bool(fitting))


def _bandwidth() -> float:
    """Bytes a second that all cores read together, the best of a few passes."""
    buffers = [np.zeros(_BUFFER_BYTES // 8, np.int64) for _ in range(_cores())]
    with ThreadPoolExecutor(len(buffers)) as pool:
        seconds = []
        for _ in range(_PASSES):
            begin = time.perf_counter()
            list(pool.map(np.max, buffers))
            seconds.append(time.perf_counter() - begin)
    return len(buffers) * _BUFFER_BYTES / min(seconds)


def _default_model(settings: Settings) -> Finding:
    from intaglio.engine.memory.machine import plan_for_machine
    from intaglio.model_source import local_model_path

    try:
        path = local_model_path(DEFAULT_MODEL_ID, settings)
        table = plan_for_machine([path], settings).table([DEFAULT_MODEL_ID])
    except NotEnoughMemoryError as error:
        return Finding("default model", str(error), False)
    except IntaglioError as error:  # another model can be served without it
        return Finding("default model", str(error))
    return Finding("default model", table)


def _data_folder(settings: Settings) -> Finding:
    folder = settings.data_path
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    free = f"{shutil.disk_usage(existing).free / 1e9:.1f} GB free"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("data folder", f"{folder} cannot be written; name another one with --data-dir", False)
    return Finding("data folder", f"{folder}{'' if folder.exists() else ' (will be made)'}, {free}")


def _port(settings: Settings) -> Finding:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except (OSError, OverflowError) as error:
            advice = "stop what listens there, or choose another with --port"
            return Finding("port", f"{settings.host} port {settings.port}: {error}; {advice}", False)
    return Finding("port", f"{settings.host} port {settings.port} is free")
