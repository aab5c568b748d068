"""`intaglio pack`: quantized weights, config and tokenizer in one file, which is served without its source."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from intaglio.cli.json_output import AsJson, print_json
from intaglio.errors import SettingsError
from intaglio.settings import load_settings

if TYPE_CHECKING:
    from intaglio.model.packing.pack import Calibration, Packed


def pack(
    source: Annotated[str, typer.Argument(help="a folder, a .gguf file, hf:OWNER/REPO, or the bundled model's id")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="the file to write", metavar="FILE", show_default=False)
    ] = None,
    format: Annotated[str, typer.Option(help="bits of the matrices: w8, w5 or w4; the embedding stays w8")] = "w8",
    calibrate: Annotated[
        Path | None,
        typer.Option(help="UTF-8 text like those to be served: its activations weight the errors of w5 and w4"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing FILE")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="compare every tensor of SOURCE, a packed file, with its digest instead")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Pack a checkpoint into one file that `serve --model ID=FILE` and `eval --model FILE` take.

    The same command resumes a run that was killed.

    Example: intaglio pack hf:google/gemma-2b --format w4 -o gemma-2b.intaglio
    """
    from intaglio.cli.progress.work import work_progress
    from intaglio.model.packing import pack as packing
    from intaglio.ops import QuantizedFormat

    began = time.monotonic()
    path = _source_path(source)
    if verify:
        with work_progress("verifying", "bytes") as progress:
            count = packing.verify(path, progress)
        seconds = time.monotonic() - began
        if as_json:
            print_json({"path": str(path), "intact": True, "tensors": count, "seconds": round(seconds, 3)})
        else:
            print(f"{path}: {count} tensors are intact ({seconds:.0f} s)")
        return
    if output is None:
        raise SettingsError("-o FILE is missing: where to write the packed file")
    if format not in get_args(QuantizedFormat):
        raise SettingsError(f"--format is {format!r}; one of {', '.join(get_args(QuantizedFormat))} is needed")
    fmt: QuantizedFormat = "w4" if format == "w4" else "w5" if format == "w5" else "w8"
    calibration = None if calibrate is None else _calibration(path, calibrate)
    target = output.expanduser()
    with work_progress("packing", "bytes") as progress:
        found = packing.pack(path, target, fmt, calibration=calibration, force=force, progress=progress)
    seconds = time.monotonic() - began
    if as_json:
        sizes = {"bytes": found.num_bytes, "tensors": found.num_tensors, "resumed_tensors": found.num_resumed}
        print_json({"path": str(found.path), "written": not found.was_there, **sizes, "seconds": round(seconds, 3)})
    else:
        print(_outcome(found, seconds))


def _calibration(path: Path, text: Path) -> Calibration:
    from intaglio.base_model import BaseModel
    from intaglio.cli.progress.work import work_progress
    from intaglio.evaluation.calibration import calibrate
    from intaglio.evaluation.texts import read_texts

    texts = read_texts([str(text)])
    settings = load_settings()
    with work_progress("calibrating", "tokens") as progress:
        return calibrate(BaseModel.open(path, settings), settings, texts, progress)


def _source_path(source: str) -> Path:
    from intaglio.cli.progress.download import download_progress
    from intaglio.model_source import local_model_path

    return local_model_path(source, load_settings(), download_progress())


def _outcome(found: Packed, seconds: float) -> str:
    size = f"{found.num_bytes / 1e6:,.0f} MB, {found.num_tensors} tensors"
    if found.was_there:
        return f"{found.path} already exists ({size}); nothing was written"
    resumed = f", {found.num_resumed} of them by an earlier run" if found.num_resumed else ""
    return (
        f"{found.path} is written ({size}{resumed}, {seconds:.0f} s). Serve it: intaglio serve --model ID={found.path}"
    )
