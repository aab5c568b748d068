"""`intaglio eval`: perplexity of a model on texts, and how much it differs from another format, model, or its base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from intaglio.cli.json_output import AsJson, print_json
from intaglio.errors import SettingsError
from intaglio.hub import is_hub_reference
from intaglio.settings import DEFAULT_MODEL_ID, Settings, load_settings

if TYPE_CHECKING:
    from intaglio.evaluation.loading import Choice
    from intaglio.evaluation.results import Evaluation, Perplexity, TextResult


def evaluate(
    text: Annotated[list[str], typer.Argument(help="UTF-8 text files; - is standard input")],
    model: Annotated[
        str, typer.Option(help="a path, hf:OWNER/REPO, ID=PATH, or the bundled model's id: what `serve` takes")
    ] = DEFAULT_MODEL_ID,
    format: Annotated[str | None, typer.Option(help="how the weights are held, as in `serve`")] = None,
    kv_format: Annotated[str | None, typer.Option(help="how keys and values are held, as in `serve`")] = None,
    adapter: Annotated[Path | None, typer.Option(help="folder of a PEFT adapter; compared with the base")] = None,
    against: Annotated[str | None, typer.Option(help="compare with this model, given as for --model")] = None,
    against_format: Annotated[
        str | None, typer.Option(help="compare with the model in this format; an adapter is on both sides")
    ] = None,
    against_kv_format: Annotated[
        str | None, typer.Option(help="compare with the model whose keys and values are held in this format")
    ] = None,
    context_length: Annotated[
        int | None, typer.Option(help="tokens of a window, BOS included [default: 2048, or the model's]")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="tokens from one window's start to the next [default: half of the context]")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="as in `serve`, for a folder without one")] = None,
    threads: Annotated[str | None, typer.Option(help="compute threads", metavar="INTEGER")] = None,
    kernels: Annotated[str | None, typer.Option(help="instruction set, as in `serve`")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model's perplexity on texts, in sliding windows; with a second format or model, or an adapter, also
    the KL divergence between the two, how often their best tokens agree, and the ratio of their perplexities.

    Example: intaglio eval texts/*.txt --format w8 --against-format f32
    """
    given = {"format": format, "kv_format": kv_format, "tokenizer": tokenizer, "threads": threads, "kernels": kernels}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    evaluated = _choice(model, settings, adapter)
    reference = _reference(evaluated, model, against, {"format": against_format, "kv_format": against_kv_format})
    found = _run(text, evaluated, reference, context_length, stride)
    if as_json:
        print_json(evaluation_json(found))
    else:
        show(found)


def _choice(model: str, settings: Settings, adapter: Path | None) -> Choice:
    from intaglio.base_model import BaseModel
    from intaglio.cli.progress.download import download_progress
    from intaglio.evaluation.loading import Choice
    from intaglio.model_source import local_model_path

    source, name = _source_and_name(model)
    path = local_model_path(source, settings, download_progress())
    return Choice(BaseModel.open(path, settings), settings, name, adapter)


def _source_and_name(model: str) -> tuple[str, str]:
    """Where a model is, and what it is called in the results."""
    if model == DEFAULT_MODEL_ID or is_hub_reference(model):
        return model, model
    if model.startswith("@") and "=" not in model:
        raise SettingsError(f"{model} is not bundled; give {DEFAULT_MODEL_ID}, a path, hf:OWNER/REPO or ID=PATH")
    model_id, equals, source = model.partition("=")
    is_path = not equals or Path(model).expanduser().exists()
    return (model, Path(model).expanduser().name) if is_path else (source, model_id)


def _reference(evaluated: Choice, model: str, against: str | None, formats: Mapping[str, str | None]) -> Choice | None:
    """The other side. An adapter alone is compared with its base; beside another format or model it is on both.

    formats  settings of the other side; None: as on the first
    """
    from dataclasses import replace

    other = {name: value for name, value in formats.items() if value is not None}
    if against is None and not other:
        return None if evaluated.adapter is None else replace(evaluated, adapter=None)
    settings = evaluated.settings
    if other:
        settings = load_settings(**{**settings.model_dump(exclude_unset=True), **other})
    return _choice(against or model, settings, evaluated.adapter)


def _run(
    names: list[str], evaluated: Choice, reference: Choice | None, context_length: int | None, stride: int | None
) -> Evaluation:
    from intaglio.cli.progress.work import work_progress
    from intaglio.evaluation.evaluate import Windowing, evaluate
    from intaglio.evaluation.loading import load_subjects, tokenize
    from intaglio.evaluation.texts import read_texts

    choices = [evaluated] if reference is None else [evaluated, reference]
    model_context = min(choice.base.config.context_length for choice in choices)
    windowing = Windowing.checked(context_length, stride, model_context)
    texts = tokenize(read_texts(names), choices)
    subjects = load_subjects(evaluated, reference, windowing)
    tokenizer = evaluated.base.tokenizer
    with work_progress("evaluating", "tokens") as progress:
        return evaluate(
            texts,
            subjects.evaluated,
            subjects.reference,
            windowing,
            bos_id=tokenizer.bos_id,
            vocab_size=tokenizer.vocab_size,
            progress=progress,
        )


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """The result for --json: sides, windows, and the figures of all tokens and of each text."""
    return {
        "evaluated": found.evaluated,
        "reference": found.reference,
        "context_length": found.context_length,
        "stride": found.stride,
        "seconds": round(found.seconds, 3),
        **_text_json(found.total),
        "texts": [{"name": one.name, **_text_json(one)} for one in found.texts],
    }


def _text_json(one: TextResult) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "tokens": one.num_tokens,
        "windows": one.num_windows,
        **_perplexity_json(one.evaluated),
    }
    if one.reference is not None and one.comparison is not None:
        figures["against"] = {**_perplexity_json(one.reference), **asdict(one.comparison)}
    return figures


def _perplexity_json(one: Perplexity) -> dict[str, float]:
    return {"perplexity": one.perplexity, "loss": one.loss, "loss_error": one.loss_error}


def show(found: Evaluation) -> None:
    """Print the result as a table: one column, or one for each text and one for all."""
    from rich.console import Console
    from rich.table import Table

    columns = [found.total] if len(found.texts) == 1 else [*found.texts, found.total]
    table = Table(title=f"{found.evaluated}; windows of {found.context_length}, stride {found.stride}")
    table.add_column("")
    for one in columns:
        table.add_column(found.texts[0].name if len(columns) == 1 else one.name, justify="right")
    for label, *cells in zip(*(_rows(one, found.reference) for one in columns), strict=True):
        table.add_row(label[0], label[1], *(value for _, value in cells))
    Console().print(table)


def _rows(one: TextResult, reference: str | None) -> list[tuple[str, str]]:
    rows = [
        ("tokens", f"{one.num_tokens:,}"),
        ("perplexity", _perplexity_text(one.evaluated)),
        ("loss, nats", f"{one.evaluated.loss:.4f}"),
    ]
    if one.reference is None or one.comparison is None:
        return rows
    compared = one.comparison
    return [
        *rows,
        (f"perplexity of {reference}", _perplexity_text(one.reference)),
        ("ratio of perplexities", f"{compared.perplexity_ratio:.4f}"),
        ("mean KL, nats", f"{compared.kl_mean:.3e}"),
        ("99 % of KL below", f"{compared.kl_p99:.3e}"),
        ("largest KL", f"{compared.kl_max:.3e}"),
        ("same best token", f"{compared.same_best:.1%}"),
    ]


def _perplexity_text(one: Perplexity) -> str:
    return f"{one.perplexity:,.4g} ± {one.perplexity * one.loss_error:.2g}"
