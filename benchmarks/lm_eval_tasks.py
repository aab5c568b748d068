"""Three tasks for lm_eval from text of this repository: a choice, texts to predict, answers to generate.

Written as JSONL files that `tests/clients/scripts/lm_eval_harness.py` reads. The demo adapters' held-out examples are
those of `examples/demo_data.py`; prompts are in Gemma's chat form with its control tokens written out, so that every
backend of the harness sends the same token ids. `chat/` has the bare questions, for a chat route.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs"
TURN = "<bos><start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n"
PLAIN = "{}"
LABELS = ("billing", "delivery", "returns", "account", "technical", "praise")
# What the harness adds to the tasks of its script. The longest held-out answer has 50 tokens.
SETTINGS: dict[str, dict[str, Any]] = {
    "choice": {"target_delimiter": ""},
    "generate": {
        "target_delimiter": "",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 64},
    },
}


def write_tasks(folder: Path, count: int) -> None:
    """`count` items of each task; `count` is even.

    Raises ValueError if the pages have fewer paragraphs.
    """
    (folder / "chat").mkdir(parents=True)
    asked = [*_held_out("intaglio-json", count // 2), *_held_out("intaglio-sql", count // 2)]
    triage = _held_out("intaglio-triage", count)
    _write(folder / "choice.jsonl", (_choice(prompt, answer) for prompt, answer in triage))
    _write(folder / "rolling.jsonl", ({"text": text} for text in _paragraphs(count)))
    for path, form in ((folder, TURN), (folder / "chat", PLAIN)):
        lines = ({"question": form.format(prompt), "answer": answer} for prompt, answer in asked)
        _write(path / "generate.jsonl", lines)


def _choice(prompt: str, answer: str) -> dict[str, Any]:
    return {"question": TURN.format(prompt), "choices": LABELS, "answer": LABELS.index(answer)}


def _held_out(task: str, count: int) -> list[tuple[str, str]]:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from demo_data import make_examples
    finally:
        sys.path.pop(0)
    return [(example.prompt, example.answer) for example in make_examples(task, "held-out", count)]


def _paragraphs(count: int) -> list[str]:
    """Paragraphs of prose of the pages: of 150 to 400 characters, no tables, lists or code."""
    found = [
        " ".join(part.split())
        for page in sorted(PAGES.rglob("*.md"))
        for part in page.read_text(encoding="utf-8").split("\n\n")
        if 150 <= len(part) <= 400 and part[0].isupper()
    ]
    if len(found) < count:
        raise ValueError(f"the pages have {len(found)} paragraphs, not {count}")
    return found[:count]


def _write(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
