"""Train one of the demo adapters again: write its data, call `intaglio train`, complete its card.

    python examples/train_adapter.py intaglio-json

Data and adapter are written to the current folder. Training takes ten to fifteen minutes on two idle cores and needs
the extra `train` (docs/adapters.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from demo_data import TASKS, as_jsonl, make_examples

NUM_TRAINING, NUM_HELD_OUT = 6000, 100
FOR_ALL = "--rank 4 --shortlist 16384 --threads 2 --overwrite"
FOR_ONE = {
    "intaglio-json": "--steps 300 --batch-size 16 --learning-rate 2e-3",
    "intaglio-sql": "--steps 240 --batch-size 12 --learning-rate 2e-3",
    "intaglio-triage": "--steps 160 --batch-size 16 --learning-rate 1e-3",
}


def training_arguments(name: str) -> list[str]:
    """The arguments of `intaglio`, which are also in the adapter's card."""
    data = ["train", f"{name}.train.jsonl", "--eval-data", f"{name}.held-out.jsonl", "--out", name]
    return [*data, *FOR_ONE[name].split(), *FOR_ALL.split()]


def complete_card(folder: Path) -> None:
    """Add the fields that the server and the playground show to the card that the training has written."""
    task = TASKS[folder.name]
    path = folder / "card.json"
    card = json.loads(path.read_text("utf-8")) | {
        "name": task.name,
        "description": task.description,
        "task": task.name.removeprefix("intaglio-"),
        "example_prompt": task.example_prompt,
        "suggested": {"form": "prompt", "max_tokens": task.max_tokens, "temperature": 0},
    }
    path.write_text(json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=sorted(TASKS))
    name = parser.parse_args().task
    Path(f"{name}.train.jsonl").write_text(as_jsonl(make_examples(name, "train", NUM_TRAINING)), "utf-8")
    Path(f"{name}.held-out.jsonl").write_text(as_jsonl(make_examples(name, "held-out", NUM_HELD_OUT)), "utf-8")
    subprocess.run([sys.executable, "-m", "intaglio.cli", *training_arguments(name)], check=True)
    complete_card(Path(name))


if __name__ == "__main__":
    main()
