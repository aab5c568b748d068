"""Train one of the demo adapters again: write its data, call `intaglio train`, complete its card.

    python examples/train_adapter.py intaglio-json

Data and adapter are written to the current folder. The data of intaglio-chat is not made here: it is the file
chat_assistant/intaglio-chat.train.jsonl, which distil_chat.py made with the base. Training takes ten to thirty minutes
on two idle cores and needs the extra `train` (docs/adapters.md).
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from demo_data import TASKS, as_jsonl, make_examples

CHAT = "intaglio-chat"
CHAT_DATA = Path(__file__).parent / "chat_assistant" / f"{CHAT}.train.jsonl"
NUM_TRAINING, NUM_HELD_OUT = 6000, 100
FOR_TASKS = "--rank 4 --shortlist 16384 --threads 2 --overwrite"
OPTIONS = {
    CHAT: "--epochs 3 --batch-size 8 --learning-rate 1e-3 --rank 16 --held-out 0.05 --threads 2 --overwrite",
    "intaglio-json": f"--steps 300 --batch-size 16 --learning-rate 2e-3 {FOR_TASKS}",
    "intaglio-sql": f"--steps 240 --batch-size 12 --learning-rate 2e-3 {FOR_TASKS}",
    "intaglio-triage": f"--steps 160 --batch-size 16 --learning-rate 1e-3 {FOR_TASKS}",
}
CHAT_CARD = {
    "description": "A small assistant: short questions, lists, rewriting, summaries of a text. It often errs.",
    "task": "chat",
    "example_prompt": "What is the capital of France?",
    "suggested": {"form": "messages", "max_tokens": 128, "temperature": 0},
}


def training_arguments(name: str) -> list[str]:
    """The arguments of `intaglio`, which are also in the adapter's card."""
    held_out = [] if name == CHAT else ["--eval-data", f"{name}.held-out.jsonl"]
    return ["train", f"{name}.train.jsonl", *held_out, "--out", name, *OPTIONS[name].split()]


def write_data(name: str, folder: Path) -> None:
    """What `training_arguments` reads."""
    if name == CHAT:
        shutil.copy(CHAT_DATA, folder)
        return
    for file, split, count in (("train", "train", NUM_TRAINING), ("held-out", "held-out", NUM_HELD_OUT)):
        (folder / f"{name}.{file}.jsonl").write_text(as_jsonl(make_examples(name, split, count)), "utf-8")


def complete_card(folder: Path) -> None:
    """Add the fields that the server and the playground show to the card that the training has written."""
    path = folder / "card.json"
    card = json.loads(path.read_text("utf-8")) | {"name": folder.name} | _shown(folder.name)
    path.write_text(json.dumps(card, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def _shown(name: str) -> dict[str, object]:
    if name == CHAT:
        return CHAT_CARD
    task = TASKS[name]
    return {
        "description": task.description,
        "task": task.name.removeprefix("intaglio-"),
        "example_prompt": task.example_prompt,
        "suggested": {"form": "prompt", "max_tokens": task.max_tokens, "temperature": 0},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapter", choices=sorted(OPTIONS))
    name = parser.parse_args().adapter
    write_data(name, Path())
    subprocess.run([sys.executable, "-m", "intaglio.cli", *training_arguments(name)], check=True)
    complete_card(Path(name))


if __name__ == "__main__":
    main()
