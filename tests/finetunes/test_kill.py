"""The process dies at every step of what changes a finetune; the next start finds old or new, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from intaglio.errors import FinetuneNotFoundError
from intaglio.finetunes import FinetuneState, FinetuneStore
from tests.finetunes.conftest import WEIGHTS, digest_in, stored_files, verifies
from tests.finetunes.killed_process import ACTS, BASE, open_store, prepared


class Picture(NamedTuple):
    """What a store shows of the finetune, and how many files it has for that."""

    state: FinetuneState
    digests: tuple[tuple[int, str], ...]
    candidate: tuple[str, ...]
    num_files: int


def picture(store: FinetuneStore, data: Path) -> Picture | None:
    """None without the finetune. Every digest is that of the files that lie in the version's folder."""
    try:
        found = store.find("acc", "mine")
    except FinetuneNotFoundError:
        assert stored_files(data) == []
        return None
    versions = [found.current, *found.earlier] if found.current is not None else []
    assert [digest_in(one.folder, BASE) for one in versions] == [one.digest for one in versions]
    candidate = tuple(found.candidate.files) if found.candidate is not None else ()
    digests = tuple((one.number, one.digest) for one in versions)
    return Picture(found.state, digests, candidate, len(stored_files(data)))


def died(act: str, folder: Path, adapters: tuple[Path, Path], url: str | None) -> list[Path]:
    """Data folders of processes that were killed before their first, second, ... step; the last one came to its end."""
    command = [sys.executable, "-m", "tests.finetunes.killed_process", act, str(folder), *map(str, adapters)]
    command += [] if url is None else [url]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], check=False, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr.decode()
    return [folder / f"step{number}" for number in range(int(done.stdout) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS)
def test_killed_at_any_step_leaves_the_old_state_or_the_new_one(
    tmp_path: Path, adapter_folder: Path, new_folder: Path, database_url: str | None, act: str
) -> None:
    bad = adapter_folder / "bad"
    bad.mkdir(exist_ok=True)
    (bad / WEIGHTS).write_bytes((adapter_folder / WEIGHTS).read_bytes()[:-1])

    do = ACTS[act][1]
    prepared(act, tmp_path / "whole", adapter_folder, new_folder, database_url)
    whole = open_store(tmp_path / "whole", database_url)
    before = picture(whole, tmp_path / "whole")
    do(whole, adapter_folder, new_folder, verifies(BASE))
    after = picture(whole, tmp_path / "whole")
    whole.close()

    folders = died(act, tmp_path, (adapter_folder, new_folder), database_url)
    seen = []
    for data in folders:
        store = open_store(data, database_url)
        seen.append(picture(store, data))
        assert list((data / "incoming").iterdir()) == []
        if seen[-1] == before and before != after:
            do(store, adapter_folder, new_folder, verifies(BASE))
            assert picture(store, data) == after
        store.close()
    assert seen == sorted(seen, key=lambda one: one == after and one != before)  # once it is new, it stays new
    assert set(seen) <= {before, after}
    assert seen[-1] == after  # what was acknowledged is there
