"""The cost of a scored prompt against a plain prefill: python -m benchmarks.scored_prompts

Both are timed in turn, in one engine in this process, without prefix cache. The plain prefill samples one token, which
is the least that a request without scores computes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from benchmarks import results
from intaglio import LLM, SamplingParams

NUM_TOKENS = 512
ROUNDS = 7
LICENSE = Path(__file__).parents[1] / "LICENSE"

CASES = {
    "prefill": SamplingParams(temperature=0, max_tokens=1),
    "scored": SamplingParams(max_tokens=0, prompt_logprobs=0),
    "scored_top_20": SamplingParams(max_tokens=0, prompt_logprobs=20),
}


def measure(model: str | None = None) -> dict[str, dict[str, float]]:
    """Seconds of each case: median and spread over the rounds."""
    llm = LLM(model, prefix_cache=False)
    prompt = _prompt(llm)
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS + 1):
        for name, params in CASES.items():
            begin = time.perf_counter()
            (completion,) = llm.generate([prompt], params, raw=True)
            seconds[name].append(time.perf_counter() - begin)
            assert completion.usage.prompt_tokens == NUM_TOKENS, "the text has been cut to this length"
    return {name: results.summary(values[1:]) for name, values in seconds.items()}  # the first round warms up


def _prompt(llm: LLM) -> str:
    """The beginning of the licence that is NUM_TOKENS tokens long, BOS included."""
    text = LICENSE.read_text()
    end = len(llm.tokenizer.decode(llm.tokenizer.encode(text)[: NUM_TOKENS - 1]))
    return next(
        text[:cut] for cut in range(end, end + 50) if len(llm.tokenizer.encode(text[:cut], add_bos=True)) == NUM_TOKENS
    )


def main() -> None:
    record = results.environment(len(os.sched_getaffinity(0))) | {"tokens": NUM_TOKENS, "seconds": measure()}
    results.write("scored_prompts", record)
    plain = record["seconds"]["prefill"]["median"]
    for name, figures in record["seconds"].items():
        milliseconds, times = 1000 * figures["median"], figures["median"] / plain
        print(f"{name:14} {milliseconds:8.0f} ms   {times:5.2f} x   spread {figures['spread']:.0%}")
    print(f"ratio of medians over {ROUNDS} rounds; load before {record['load_before']} cores")


if __name__ == "__main__":
    main()
