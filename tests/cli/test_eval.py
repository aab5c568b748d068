"""`intaglio eval` from the command line: its JSON, its table, its errors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from intaglio import model_source
from intaglio.cli import build_cli
from intaglio.cli.progress.work import work_progress
from intaglio.errors import EvaluationError, ModelFormatError, SettingsError
from intaglio.model.config import config_from_hf
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

TEXT = "once upon a time there was a small house in the forest and in the house there lived a family of bears"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    config = tiny_config("gemma3_text", vocab_size=512)
    write_hf_folder(folder, config, random_weights(config, 4))
    write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    write_peft_adapter(folder.parent / "weak", config_from_hf(config), alpha=1e-12)
    (folder.parent / "text.txt").write_text(TEXT)
    return folder


def invoke(model: Path, *arguments: object, given: str | None = None) -> Result:
    words = ["eval", *map(str, arguments)]
    environment = {"INTAGLIO_CACHE_DIR": str(model.parent / "cache"), "COLUMNS": "150"}
    return CliRunner().invoke(build_cli(), words, input=given, env=environment)


def evaluation(model: Path, *arguments: object, given: str | None = None) -> dict[str, Any]:
    result = invoke(model, *arguments, "--json", given=given)
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_json_has_the_figures_of_each_text_and_of_all(model: Path) -> None:
    file = model.parent / "text.txt"
    found = evaluation(model, file, "-", "--model", f"tiny={model}", "--context-length", 32, given=TEXT)
    assert (found["evaluated"], found["reference"]) == ("tiny (auto)", None)
    assert (found["context_length"], found["stride"]) == (32, 16)
    assert [one["name"] for one in found["texts"]] == [str(file), "<stdin>"]
    one, two = found["texts"]
    assert one["perplexity"] == two["perplexity"] == pytest.approx(found["perplexity"])
    assert found["tokens"] == one["tokens"] + two["tokens"]
    assert "against" not in found


def test_json_of_a_comparison_has_both_sides(model: Path) -> None:
    options = ("--model", model, "--format", "w4", "--against-format", "f32")
    found = evaluation(model, model.parent / "text.txt", *options)
    assert (found["evaluated"], found["reference"]) == ("model (w4)", "model (f32)")
    assert found["against"].keys() == {
        "perplexity", "loss", "loss_error", "kl_mean", "kl_p99", "kl_max", "same_best", "perplexity_ratio",
    }  # fmt: skip
    assert 0 < found["against"]["kl_mean"] <= found["against"]["kl_p99"] <= found["against"]["kl_max"]
    ratio = found["perplexity"] / found["against"]["perplexity"]
    assert found["against"]["perplexity_ratio"] == pytest.approx(ratio)


def test_keys_and_values_are_held_as_a_server_would_and_can_be_compared_in_two_formats(model: Path) -> None:
    file = model.parent / "text.txt"
    found = evaluation(model, file, "--model", model, "--kv-format", "int8", "--against-kv-format", "f32")
    assert (found["evaluated"], found["reference"]) == ("model (auto, KV int8)", "model (auto, KV f32)")
    assert 0 < found["against"]["kl_mean"] < 0.01
    both = evaluation(model, file, "--model", model, "--format", "w8", "--against-kv-format", "bf16")
    assert both["against"]["kl_max"] == 0, "beside quantized weights auto is bf16"


def test_an_adapter_below_rounding_equals_its_base(model: Path) -> None:
    weak = model.parent / "weak"
    found = evaluation(model, model.parent / "text.txt", "--model", model, "--adapter", weak)
    assert (found["evaluated"], found["reference"]) == ("model (auto) + weak", "model (auto)")
    assert (found["against"]["kl_max"], found["against"]["same_best"]) == (0, 1)


def test_an_adapter_and_a_format_put_the_adapter_on_both_sides(model: Path) -> None:
    options = ("--model", model, "--adapter", model.parent / "weak", "--against-format", "w8")
    assert evaluation(model, model.parent / "text.txt", *options)["reference"] == "model (w8) + weak"


def test_another_model_is_compared_by_its_path(model: Path) -> None:
    found = evaluation(model, model.parent / "text.txt", "--model", model, "--against", f"again={model}")
    assert (found["reference"], found["against"]["kl_max"]) == ("again (auto)", 0)


def test_a_model_of_the_hub_is_evaluated_under_its_reference_or_an_id(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_source, "fetch_model", lambda _reference, _progress: model)
    file = model.parent / "text.txt"
    assert evaluation(model, file, "--model", "hf:acme/tiny")["evaluated"] == "hf:acme/tiny (auto)"
    assert evaluation(model, file, "--model", "mine=hf:acme/tiny@v1")["evaluated"] == "mine (auto)"


def test_the_table_names_both_sides_and_every_figure(model: Path) -> None:
    shown = invoke(model, model.parent / "text.txt", "--model", model, "--against-format", "w8").stdout
    rows = ("tokens", "perplexity of model (w8)", "ratio of perplexities", "mean KL", "99 %", "largest KL", "same best")
    assert [row for row in rows if row not in shown] == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("--kv-format", "q8"), SettingsError, "setting 'kv_format' is 'q8'"),
        (("--context-length", 641), EvaluationError, "from 2 to 640, the context length of the model"),
        (("--stride", 0), EvaluationError, "--stride is 0"),
        (("--format", "w3"), SettingsError, "setting 'format' is 'w3'"),
        (("--against-format", "w3"), SettingsError, "setting 'format' is 'w3'"),
        (("--against", "nowhere"), ModelFormatError, "nowhere does not exist"),
        (("--against", "@cf/google/gemma-7b-it"), SettingsError, "is not bundled"),
        (("--threads", "many"), SettingsError, "setting 'threads' is 'many'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    model: Path, options: tuple[object, ...], error: type[Exception], message: str
) -> None:
    result = invoke(model, model.parent / "text.txt", "--model", model, *options)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)


@pytest.mark.parametrize(("given", "message"), [("", "<stdin> is empty"), ("e", "has 1 token; at least 2")])
def test_a_text_without_two_tokens_is_refused(model: Path, given: str, message: str) -> None:
    result = invoke(model, "-", "--model", model, given=given)
    assert isinstance(result.exception, EvaluationError)
    assert message in str(result.exception)


def test_without_a_terminal_a_line_is_written_every_ten_seconds_with_the_time_left() -> None:
    stream, now = io.StringIO(), [0.0]
    with work_progress("packing", "bytes", Console(file=stream), lambda: now[0]) as report:
        for second in range(31):
            now[0] = float(second)
            report(100 + 10 * second, 500)  # an earlier run had done 100
    assert stream.getvalue().splitlines() == [
        "packing: 40%, about 30 s left",
        "packing: 60%, about 20 s left",
        "packing: 80%, about 10 s left",
    ]


def test_a_terminal_gets_a_bar_with_the_time_left() -> None:
    stream = io.StringIO()
    with work_progress("evaluating", "tokens", Console(file=stream, force_terminal=True, width=100)) as report:
        report(30, 60)
    assert "evaluating" in stream.getvalue()
    assert "30/60" in stream.getvalue()
