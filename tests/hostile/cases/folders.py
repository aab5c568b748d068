"""Adapter folders on the server's own disk that hold links, pipes and devices where files are expected.

A link to a regular file is valid: the Hugging Face Hub stores downloads this way, each name in a snapshot is a link to
a file with its content. So links are followed; the target must be a regular file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class HostileFolder(NamedTuple):
    """name: what is in place of the file. make: creates it. complaint: a regular expression for the message."""

    name: str
    make: Callable[[Path], object]
    complaint: str


NO_FILE = "cannot be read: "
NOT_REGULAR = "is not a regular file"


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has to be short
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def _loop(path: Path) -> None:
    path.with_name("other").symlink_to(path.name)
    path.symlink_to("other")


def _sparse(path: Path) -> None:
    """A sparse file of a terabyte."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


FOLDERS = (
    HostileFolder("nothing", lambda path: None, f"{NO_FILE}No such file"),
    HostileFolder("a dangling link", lambda path: path.symlink_to("nowhere"), f"{NO_FILE}No such file"),
    HostileFolder("a link to itself", lambda path: path.symlink_to(path.name), f"{NO_FILE}Too many levels"),
    HostileFolder("two links in a circle", _loop, f"{NO_FILE}Too many levels"),
    HostileFolder("a folder", lambda path: path.mkdir(), NOT_REGULAR),
    HostileFolder("a link to a folder", lambda path: path.symlink_to("/"), NOT_REGULAR),
    HostileFolder("a pipe", os.mkfifo, NOT_REGULAR),
    HostileFolder(
        "a link to a pipe", lambda path: (os.mkfifo(path.with_name("pipe")), path.symlink_to("pipe")), NOT_REGULAR
    ),
    HostileFolder("a socket", _socket, f"{NOT_REGULAR}|{NO_FILE}No such device"),
    HostileFolder("zeros without end", lambda path: path.symlink_to("/dev/zero"), NOT_REGULAR),
    HostileFolder("noise without end", lambda path: path.symlink_to("/dev/urandom"), NOT_REGULAR),
    HostileFolder("the null device", lambda path: path.symlink_to("/dev/null"), NOT_REGULAR),
    HostileFolder(
        "a link to a file outside that is not an adapter",
        lambda path: path.symlink_to("/etc/passwd"),
        "is not a safetensors file|is a JSON text|not valid JSON",
    ),
    HostileFolder(
        "a hard link to the other file",
        lambda path: path.hardlink_to(next(path.parent.glob("adapter_*"))),
        "safetensors file|is a JSON text|not valid JSON",
    ),
    HostileFolder("an empty file", lambda path: path.touch(), "0 bytes are too few|not valid JSON"),
    HostileFolder("a terabyte", _sparse, "1099511627776 bytes; the limit is|more than 1048576 bytes"),
    HostileFolder(
        "a file of the kernel", lambda path: path.symlink_to("/proc/self/environ"), "safetensors file|not valid JSON"
    ),
)


@contextmanager
def released(folder: Path) -> Iterator[None]:
    """At the end, unblock readers that wait at a pipe of the folder, so that a failing test does not hang others."""
    try:
        yield
    finally:
        for path in folder.iterdir():
            if path.is_fifo():
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                except OSError:  # no reader waits, as expected
                    continue
