"""EleutherAI's lm-evaluation-harness: `lm-eval[api]` and `transformers`, for the tokenizer, on PyPI.

    RUN='{"model": "local-completions", "model_args": {...}, "tasks": ["choice"]}' python lm_eval_harness.py

Prints, as one line of JSON, each task's metrics and the raw results of its requests. With `{"model": "hf", ...}` and
torch the same tasks run on the harness's own backend. `"data"` is another folder with the tasks' JSONL files, and
`"settings"` changes a task: `{"generate": {"generation_kwargs": {...}}}`. A list of runs prints a line for each.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval

DATA = Path(__file__).parents[1] / "lm_eval_tasks"
PLAIN = {"dataset_path": "json", "test_split": "test"}
TASKS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "generate": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
}


def run(
    model: str,
    model_args: dict[str, Any],
    tasks: list[str],
    data: str = str(DATA),
    settings: dict[str, dict[str, Any]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    configs = [
        {
            "task": name,
            **PLAIN,
            "dataset_kwargs": {"data_files": {"test": str(Path(data) / f"{name}.jsonl")}},
            **TASKS[name],
            **(settings or {}).get(name, {}),
        }
        for name in tasks
    ]
    found = lm_eval.simple_evaluate(model=model, model_args=model_args, tasks=configs, bootstrap_iters=0, **options)
    return {
        name: {
            "metrics": {
                key: value
                for key, value in found["results"][name].items()
                if isinstance(value, float | int) and "stderr" not in key and key != "sample_len"
            },
            "answers": [sample["resps"] for sample in found["samples"][name]],
        }
        for name in tasks
    }


if __name__ == "__main__":
    described = json.loads(os.environ["RUN"])
    for one in described if isinstance(described, list) else [described]:
        sys.stdout.write(json.dumps(run(**one)) + "\n")
