"""EleutherAI's harness on this server beside its own Hugging Face backend: `python -m benchmarks.lm_eval_figures`.

The bundled 270M and each demo adapter, on the three tasks of `lm_eval_tasks.py`, 50 items each (`--count`):

transformers   lm_eval's backend `hf`: the bundled file's numbers in float32, adapters by PEFT
f32            this server with weights, keys, values and adapters in float32: has to give the same figures
served         this server as `intaglio serve` starts it: what users get

The first run makes an environment with lm-eval, torch and PEFT (about 1.2 GB) and a folder of the model that
transformers reads (1.1 GB) in the benchmarks' home; `--python` takes an environment that has them. What each side found
is kept there too, by the digest of the tasks, so that a run can be resumed; `--again` measures this server anew. Prints
a table in Markdown, and writes a line to benchmarks/results/lm_eval.jsonl.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from tests.helpers.servers import serve

from benchmarks import results
from benchmarks.lm_eval_tasks import SETTINGS, write_tasks
from benchmarks.models import run_logged
from intaglio.model.bundled import bundled_model_path
from intaglio.settings import DEFAULT_MODEL_ID, load_settings

ROOT = Path(__file__).resolve().parents[1]
HARNESS = ROOT / "tests" / "clients" / "scripts" / "lm_eval_harness.py"
ADAPTERS = ROOT / "src" / "intaglio" / "demo_adapters"
PACKAGES = ("lm-eval[api,hf]==0.4.13", "transformers==5.23.0", "peft==0.21.2", "gguf", "accelerate")
CORES = len(os.sched_getaffinity(0))
TASKS = ["choice", "rolling", "generate"]
METRICS = {"choice": "acc,none", "rolling": "bits_per_byte,none", "generate": "exact_match,none"}
SIDES = {"f32": ["--format", "f32"], "served": []}
# Of a sum of logprobs, relative to it: each token's is rounded to float32 on both sides, and both add up products in
# another order.
MAX_DIFFERENCE = 1e-4

Answers = Mapping[str, Any]


def main(
    count: Annotated[int, typer.Option(help="items of each task, even")] = 50,
    home: Annotated[Path, typer.Option(callback=Path.expanduser)] = Path("~/.cache/intaglio-bench"),
    python: Annotated[Path | None, typer.Option(help="interpreter that has lm-eval, torch, peft and gguf")] = None,
    threads: Annotated[int, typer.Option(help="of each side; 1 beside other programs")] = CORES,
    again: Annotated[bool, typer.Option(help="measure this server anew, also where figures are kept")] = False,
) -> None:
    """Run everything, print the tables; exit with 1 if f32 does not equal transformers."""
    program = python or _environment(home)
    folder = _model_folder(home, program)
    names = ["base", *sorted(path.parent.name for path in ADAPTERS.glob("*/adapter_config.json"))]
    with tempfile.TemporaryDirectory(prefix="intaglio-lm-eval-") as temporary:
        tasks = Path(temporary) / "tasks"
        write_tasks(tasks, count)
        harness = Harness(program, tasks, threads)
        kept = Kept(home / "lm-eval" / f"found-{_digest(tasks)}", again=again)
        found = {"transformers": kept.get("transformers", lambda: harness.transformers(folder, names))}
        for side, arguments in SIDES.items():
            with serve([*arguments, "--threads", str(threads)], Path(temporary) / side) as server:
                ask = functools.partial(harness.served, f"{server.account()}/ai/v1", names)
                found[side] = kept.get(side, ask)
    record = {**results.environment(threads), "count": count, "rows": list(rows_beside(found))}
    results.write("lm_eval", record)
    _show(record["rows"], count)
    if any(row["difference"] > MAX_DIFFERENCE for row in record["rows"] if row["side"] == "f32"):
        raise typer.Exit(1)


class Kept:
    """Answers on the disk, one file for each side. With `again` those of this server are not used."""

    def __init__(self, folder: Path, *, again: bool) -> None:
        self._folder, self._again = folder, again
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, side: str, measure: Callable[[], Answers]) -> Answers:
        file = self._folder / f"{side}.json"
        if not file.exists() or (self._again and side in SIDES):
            file.write_text(json.dumps(measure()))
        found: Answers = json.loads(file.read_text())
        return found


class Harness:
    """Runs of lm_eval in its own environment, on one folder of tasks."""

    def __init__(self, program: Path, tasks: Path, threads: int) -> None:
        self._program, self._tasks, self._threads = program, tasks, threads

    def transformers(self, folder: Path, names: Sequence[str]) -> Answers:
        """By name of model, by task, what the script prints."""
        shared = {"pretrained": str(folder), "dtype": "float32", "add_bos_token": False}
        adapters = [{} if name == "base" else {"peft": str(ADAPTERS / name)} for name in names]
        runs = [{"model_args": shared | adapter, "batch_size": 4, "device": "cpu"} for adapter in adapters]
        return dict(zip(names, self._run([{"model": "hf", "tasks": TASKS, **run} for run in runs]), strict=True))

    def served(self, address: str, names: Sequence[str]) -> Answers:
        """Every task by `local-completions`, and under `chat` the generated one by `local-chat-completions`.

        The tokenizer is the server's: lm_eval 0.4.13 would use one that it is given as if it were remote, since the
        server has /tokenizer_info, and so send every prompt with a second BOS.
        """
        ids = [DEFAULT_MODEL_ID if name == "base" else f"{DEFAULT_MODEL_ID}:{name}" for name in names]
        shared = {"max_length": 2048, "timeout": 600}
        plain = shared | {"base_url": f"{address}/completions", "tokenizer_backend": "remote", "batch_size": 8}
        chat = shared | {"base_url": f"{address}/chat/completions", "num_concurrent": 4}
        asked = {"tasks": ["generate"], "data": str(self._tasks / "chat"), "apply_chat_template": True}
        runs = [{"model": "local-completions", "model_args": plain | {"model": id_}, "tasks": TASKS} for id_ in ids]
        runs += [{"model": "local-chat-completions", "model_args": chat | {"model": id_}, **asked} for id_ in ids]
        found = self._run(runs)
        answers, chats = found[: len(names)], found[len(names) :]
        return {name: {**one, "chat": two["generate"]} for name, one, two in zip(names, answers, chats, strict=True)}

    def _run(self, runs: Sequence[Mapping[str, Any]]) -> list[Answers]:
        described = [{"data": str(self._tasks), "settings": SETTINGS, **run} for run in runs]
        environment = {**os.environ, "RUN": json.dumps(described), "OMP_NUM_THREADS": str(self._threads)}
        done = subprocess.run(
            [str(self._program), str(HARNESS)],
            stdout=subprocess.PIPE, text=True, env=environment, cwd=self._tasks, check=True,
        )  # fmt: skip
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]


def _environment(home: Path) -> Path:
    program = home / "lm-eval" / "venv" / "bin" / "python"
    if not program.exists():
        log = home / "logs" / "install-lm-eval.log"
        run_logged([sys.executable, "-m", "venv", str(program.parents[1])], log)
        run_logged([str(program), "-m", "pip", "install", "-q", "torch==2.13.0", *PACKAGES], log)
    return program


def _model_folder(home: Path, program: Path) -> Path:
    folder = home / "models" / "gemma-3-270m-f32-hf"
    if not (folder / "tokenizer_config.json").exists():
        file = bundled_model_path(load_settings().cache_path)
        command = [str(program), "-m", "benchmarks.lm_eval_folder", str(file), str(folder)]
        run_logged(command, home / "logs" / "lm-eval-folder.log", cwd=ROOT)
    return folder


def _digest(tasks: Path) -> str:
    files = sorted(path for path in tasks.rglob("*.jsonl"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files) + repr(SETTINGS).encode()).hexdigest()[:12]


def rows_beside(found: Mapping[str, Mapping[str, Answers]]) -> Iterator[dict[str, Any]]:
    """One row for each model and side: metrics, and how far its answers are from those of transformers."""
    for name, judged in found["transformers"].items():
        for side, models in found.items():
            answers = models[name]
            generated = _texts(answers["generate"])
            row = {"model": name, "side": side, **{task: answers[task]["metrics"][METRICS[task]] for task in TASKS}}
            row["difference"] = max(
                abs(ours - theirs) / max(1.0, abs(theirs))
                for task in ("choice", "rolling")
                for ours, theirs in zip(_sums(answers[task]), _sums(judged[task]), strict=True)
            )
            row["same_texts"] = _equal(generated, _texts(judged["generate"]))
            if "chat" in answers:
                row["same_by_chat"] = _equal(generated, _texts(answers["chat"]))
            yield row


def _sums(answers: Answers) -> list[float]:
    """Every sum of logprobs of a task, in order; nan would compare as equal."""
    sums = [float(_first(resps)) for item in answers["answers"] for resps in item]
    if not all(map(math.isfinite, sums)):
        raise ValueError("a sum of logprobs is not finite")
    return sums


def _texts(answers: Answers) -> list[str]:
    return [str(_first(item)).strip() for item in answers["answers"]]


def _first(nested: Any) -> Any:
    return _first(nested[0]) if isinstance(nested, list) else nested


def _equal(these: list[str], those: list[str]) -> int:
    return sum(one == other for one, other in zip(these, those, strict=True))


def _show(rows: list[dict[str, Any]], count: int) -> None:
    print("| model | side | choice: accuracy | pages: bits/byte | answers: exact | difference | same text | by chat |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        chat = f"{row['same_by_chat']} of {count}" if "same_by_chat" in row else ""
        same = "" if row["side"] == "transformers" else f"{row['same_texts']} of {count}"
        difference = "" if row["side"] == "transformers" else f"{row['difference']:.1e}"
        figures = f"{row['choice']:.2f} | {row['rolling']:.4f} | {row['generate']:.2f}"
        print(f"| {row['model']} | {row['side']} | {figures} | {difference} | {same} | {chat} |")


if __name__ == "__main__":
    typer.run(main)
