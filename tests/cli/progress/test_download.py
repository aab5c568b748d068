from __future__ import annotations

import io
import logging

import pytest
from rich.console import Console

from intaglio.cli.progress.download import download_progress


def test_a_terminal_shows_size_share_and_time_left_of_the_whole_model() -> None:
    screen = io.StringIO()
    progress = download_progress(console=Console(file=screen, force_terminal=True, width=120))
    progress.begin("google/gemma-7b-it", 12, 2_000_000, 500_000)
    progress.advance(1_500_000)
    progress.end()
    shown = screen.getvalue()
    assert "google/gemma-7b-it (12 files)" in shown
    assert "2.0/2.0 MB" in shown
    assert "0:00:00" in shown


def test_a_download_that_ends_before_it_begins_shows_nothing() -> None:
    screen = io.StringIO()
    download_progress(console=Console(file=screen, force_terminal=True)).end()
    assert screen.getvalue() == ""


def test_without_a_terminal_lines_go_to_the_log_of_a_server_and_to_stderr_of_other_commands(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    plain = Console(file=io.StringIO())
    with caplog.at_level(logging.INFO):
        download_progress(log=True, console=plain).begin("a/b", 2, 10**9, 0)
    assert "a/b: downloading 2 files, 1.0 GB" in caplog.text
    download_progress(console=plain).begin("a/c", 1, 5 * 10**6, 0)
    assert capsys.readouterr().err == "a/c: downloading 1 file, 5 MB\n"
