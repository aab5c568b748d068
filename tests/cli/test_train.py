"""`intaglio train` without torch: its options, error messages and progress output."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from intaglio.cli import build_cli, main
from intaglio.cli.progress.training import BarReport, LineReport, make_report
from intaglio.cli.train import base_name, command_text
from intaglio.cli.training_options import with_training_options
from intaglio.errors import ServerUnreachableError, SettingsError, TrainingError, TrainingInterruptedError
from intaglio.training.options import TrainingOptions
from intaglio.training.report import Evaluation

EVALUATION = Evaluation(loss=0.25, perplexity=1.284, exact=0.955, num_examples=200)


def run(*arguments: object) -> None:
    typer.main.get_command(build_cli())([str(one) for one in ("train", *arguments)], standalone_mode=False)


def test_every_option_of_a_training_reaches_the_command_by_name(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def command(data: Path, **given: Any) -> None:
        seen.update(given)

    cli = typer.Typer()
    cli.command()(with_training_options(command))
    given = ["--steps", "7", "--rank", "3", "--targets", "q_proj, k_proj", "--dora", "--eval-data", "e.jsonl"]
    typer.main.get_command(cli)(["d.jsonl", *given], standalone_mode=False)
    assert seen.keys() == {one.name for one in fields(TrainingOptions)} - {"data", "out", "base_name", "command"}
    assert (seen["steps"], seen["rank"], seen["dora"], seen["rslora"]) == (7, 3, True, False)
    assert (seen["targets"], seen["eval_data"]) == (("q_proj", "k_proj"), Path("e.jsonl"))
    assert TrainingOptions(data=tmp_path, out=tmp_path, base_name="", **seen).batch_size == 8


def test_an_adapters_files_name_its_base_as_peft_does() -> None:
    assert base_name("hf:google/gemma-7b-it@main") == "google/gemma-7b-it"
    assert base_name("@intaglio/gemma-3-270m") == "google/gemma-3-270m"
    assert base_name("/models/mine") == "/models/mine"
    with pytest.raises(SettingsError, match="does not name a model of the Hugging Face hub"):
        base_name("hf:mine")


def test_an_option_out_of_bounds_is_refused_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--rank is 999.* 1 to 256"):
        run(tmp_path / "nowhere.jsonl", "--out", tmp_path / "out", "--rank", 999)


def test_a_dtype_that_is_not_offered_is_refused_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"--dtype is 'int8'.*auto, float32, bfloat16"):
        run(tmp_path / "nowhere.jsonl", "--out", tmp_path / "out", "--dtype", "int8")


@pytest.mark.parametrize("given", [("--public",), ("--publish-model", "@x/y")])
def test_options_of_publish_are_refused_without_it(tmp_path: Path, given: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=f"{given[0]} .*--publish"):
        run(tmp_path / "nowhere.jsonl", "--out", tmp_path / "out", *given)


@pytest.mark.parametrize("token", [("--token", "secret"), ("--token=secret",)])
def test_the_command_that_the_card_keeps_has_no_token(token: tuple[str, ...]) -> None:
    assert command_text(["train", "my data", *token, "--publish", "x"]) == (
        f"intaglio train 'my data' {' '.join(token).replace('secret', '...')} --publish x"
    )


def test_ctrl_c_ends_the_command_with_its_own_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise TrainingInterruptedError("stopped; out holds nothing")

    monkeypatch.setattr("intaglio.training.run.check_installed", interrupted)
    monkeypatch.setattr(sys, "argv", ["intaglio", "train", "d.jsonl", "--out", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "intaglio: stopped; out holds nothing\n")


def test_an_unreachable_server_is_reported_before_the_training(tmp_path: Path) -> None:
    given = ["--out", tmp_path / "out", "--publish", "mine", "--url", "http://127.0.0.1:9"]
    with pytest.raises(ServerUnreachableError, match=r"no response from http://127\.0\.0\.1:9"):
        run(tmp_path / "nowhere.jsonl", *given)


def test_plain_lines_show_the_first_every_tenth_and_the_last_step() -> None:
    stream = io.StringIO()
    report = make_report(stream)
    assert isinstance(report, LineReport)
    report.begin(23)
    for number in range(1, 24):
        report.step(number, 0.5, 1e-3, 40)
    report.end()
    report.evaluated("after", EVALUATION)
    lines = stream.getvalue().splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["1/23", "10/23", "20/23", "23/23"]
    assert "loss 0.5000  learning rate 1.00e-03" in lines[0]
    assert all(re.search(r"  \d+ tokens/s  \d+ s, about \d+ s left$", line) for line in lines[:-1])
    assert lines[-2].endswith("about 0 s left")
    assert lines[-1] == "after training: held-out loss 0.2500, perplexity 1.284, exact answers 95.5%"


def test_a_terminal_gets_a_bar_with_the_loss_beside_it() -> None:
    stream = io.StringIO()
    report = BarReport(Console(file=stream, force_terminal=True, width=100))
    report.begin(3)
    report.step(3, 0.125, 1e-3, 40)
    report.end()
    report.note("[done]")
    shown = stream.getvalue()
    assert re.search(r"loss 0\.1250, \d+ tokens/s", shown)
    assert "3/3" in shown
    assert "[done]" in shown  # not interpreted as markup
