from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from intaglio.batches import ModelClaims

DEADLINE_S = 20.0


def test_a_model_is_claimed_by_one_server_until_it_releases_the_claim(tmp_path: Path) -> None:
    mine, theirs = ModelClaims(tmp_path), ModelClaims(tmp_path)
    assert mine.claim("@cf/google/gemma")
    assert mine.claim("@cf/google/gemma")
    assert not theirs.claim("@cf/google/gemma")
    assert theirs.claim("@cf/google/other")
    mine.release("@cf/google/gemma")
    assert theirs.claim("@cf/google/gemma")
    theirs.close()
    assert mine.claim("@cf/google/other")
    mine.close()


def test_any_model_id_can_be_claimed(tmp_path: Path) -> None:
    claims = ModelClaims(tmp_path)
    assert claims.claim("../../" + "ä" * 500)
    assert all(file.parent == tmp_path for file in tmp_path.rglob("*"))
    claims.close()


def _hold(folder: Path, told: Connection) -> None:
    claims = ModelClaims(folder)
    told.send(claims.claim("m"))
    told.recv()  # for ever: the process is killed here


def test_a_killed_server_holds_no_claim(tmp_path: Path) -> None:
    here, there = multiprocessing.Pipe()
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, there))
    other.start()
    assert here.poll(DEADLINE_S)
    assert here.recv() is True
    claims = ModelClaims(tmp_path)
    assert not claims.claim("m")
    other.kill()
    other.join(DEADLINE_S)
    assert claims.claim("m")
    claims.close()
