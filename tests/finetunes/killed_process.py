"""Runs one operation of a store again and again, each time in a new process that is killed one step later.

    python -m tests.finetunes.killed_process ACT FOLDER ADAPTER NEW_ADAPTER [DATABASE_URL]

A step is whatever may change the disk: a file opened for writing, written to the disk, renamed, linked or removed, a
folder made or removed, a transaction begun or committed. Python itself tells of them, so the store knows nothing of
this. FOLDER gets one data folder per process, named by the step at which it died; the last one came to its end, and its
name is printed. With PostgreSQL each has a schema of that name. The processes are forks of this one, which is quicker
than to start each anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import psycopg
import sqlalchemy as sa

from intaglio.errors import AdapterError
from intaglio.finetunes import FinetuneStore
from intaglio.lora.peft.reader import AdapterLimits
from intaglio.model.config import config_from_hf
from intaglio.request import VerifiedAdapter
from tests.finetunes.conftest import CONFIG, WEIGHTS, Verify, add, add_both, create, verifies
from tests.helpers.checkpoints import tiny_config

CHANGES = {"os.mkdir", "os.link", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
FOR_WRITING = os.O_WRONLY | os.O_RDWR

BASE = config_from_hf(tiny_config("gemma"))


class Steps:
    """Counts steps, and kills the process before one of them."""

    def __init__(self, last: int) -> None:
        self._left = last
        self._watching = False

    def watch(self) -> None:
        fsync = os.fsync

        def counted_fsync(descriptor: int) -> None:
            self._step()
            fsync(descriptor)

        os.fsync = counted_fsync
        sys.addaudithook(self._on_event)
        for name in ("begin", "commit"):
            sa.event.listen(sa.Engine, name, lambda _connection: self._step())
        self._watching = True

    def verify(self, folder: str) -> VerifiedAdapter:
        self._step()
        return verifies(BASE)(folder)

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & FOR_WRITING
        if opens or event in CHANGES:
            self._step()

    def _step(self) -> None:
        self._left -= 1
        if self._watching and self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


Act = Callable[[FinetuneStore, Path, Path, Verify], object]


def _refused(store: FinetuneStore, folder: Path, verify: Verify) -> None:
    bad = folder / "bad" / WEIGHTS
    try:
        add(store, bad, BASE, verify=verify)
    except AdapterError:
        return
    raise AssertionError("a bad file was taken")


def _two_and_a_half(store: FinetuneStore, old: Path, new: Path) -> None:
    """Two versions, and a file of a third."""
    create(store)
    add_both(store, old, BASE)
    add_both(store, new, BASE)
    add(store, old / CONFIG, BASE)


# What is there before, and what is done then.
ACTS: dict[str, tuple[Callable[[FinetuneStore, Path, Path], object], Act]] = {
    "create": (lambda store, old, new: None, lambda store, old, new, verify: create(store)),
    "first file": (
        lambda store, old, new: create(store),
        lambda store, old, new, verify: add(store, old / CONFIG, BASE),
    ),
    "second file": (
        lambda store, old, new: (create(store), add(store, old / CONFIG, BASE)),
        lambda store, old, new, verify: add(store, old / WEIGHTS, BASE, verify=verify),
    ),
    "bad file": (
        lambda store, old, new: (create(store), add(store, old / CONFIG, BASE)),
        lambda store, old, new, verify: _refused(store, old, verify),
    ),
    "third version": (
        _two_and_a_half,
        lambda store, old, new, verify: add(store, old / WEIGHTS, BASE, verify=verify),
    ),
    "same files": (
        lambda store, old, new: (create(store), add_both(store, old, BASE), add(store, old / CONFIG, BASE)),
        lambda store, old, new, verify: add(store, old / WEIGHTS, BASE, verify=verify),
    ),
    "rollback": (_two_and_a_half, lambda store, old, new, verify: store.roll_back("acc", "mine")),
    "delete": (_two_and_a_half, lambda store, old, new, verify: store.delete("acc", "mine")),
}


def open_store(data: Path, url: str | None) -> FinetuneStore:
    """The store in a data folder that a run has left; with PostgreSQL in the schema of the folder's name."""
    if url is not None:
        url = f"{url}&options={quote(f'-csearch_path={data.name}')}"
    return FinetuneStore(data, AdapterLimits(), max_finetunes=3, database_url=url)


def make_schema(url: str | None, name: str) -> None:
    if url is not None:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute(f"CREATE SCHEMA {name}")


def prepared(act: str, data: Path, old: Path, new: Path, url: str | None) -> None:
    """What is there before the act, in a new data folder."""
    make_schema(url, data.name)
    store = open_store(data, url)
    ACTS[act][0](store, old, new)
    store.close()


def _live_or_die(act: str, data: Path, old: Path, new: Path, url: str | None, steps: Steps) -> None:
    store = open_store(data, url)
    steps.watch()
    ACTS[act][1](store, old, new, steps.verify)
    os._exit(0)


def main(act: str, folder: Path, old: Path, new: Path, url: str | None) -> None:
    last = 0
    if url is None:
        prepared(act, folder / "before", old, new, None)
    while True:
        data = folder / f"step{last}"
        if url is None:
            shutil.copytree(folder / "before", data)
        else:
            prepared(act, data, old, new, url)
        child = os.fork()
        if child == 0:
            try:
                _live_or_die(act, data, old, new, url, Steps(last))
            finally:  # a fork must not come back into this loop
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(3)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            break
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(1)
        last += 1
    sys.stdout.write(f"{last}\n")


if __name__ == "__main__":
    name, folder, old, new, *rest = sys.argv[1:]
    main(name, Path(folder), Path(old), Path(new), rest[0] if rest else None)
