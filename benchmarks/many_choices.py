"""Eight completions of one prompt of 2,000 tokens: python -m benchmarks.many_choices

As one request with `n`, whose prompt is computed once, and as eight requests. Both run in turn in one engine process
without prefix cache. The computed tokens are counted by the engine, so they are exact on a busy machine too; the
seconds are not.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

from benchmarks import results
from intaglio.llm import AsyncLLM, RequestHandle
from intaglio.model_source import local_model_path
from intaglio.request import SamplingParams
from intaglio.settings import DEFAULT_MODEL_ID, load_settings

NUM_CHOICES, NUM_PROMPT, NUM_OUTPUT = 8, 2000, 16
ROUNDS = 3


async def measure() -> dict[str, Any]:
    """Of each way: tokens of the prompt that were computed, and seconds until the last completion ended."""
    settings = load_settings(prefix_cache=False)
    llm = await AsyncLLM.start(DEFAULT_MODEL_ID, local_model_path(DEFAULT_MODEL_ID, settings), settings)
    try:
        figures: dict[str, Any] = {"one_request": [], "eight_requests": []}
        for number in range(ROUNDS + 1):
            ids = [llm.tokenizer.bos_id, *(1000 + (7 * place + number) % 9000 for place in range(NUM_PROMPT - 1))]
            params = [_params(seed) for seed in range(NUM_CHOICES)]
            for name, rounds in figures.items():
                begin = time.perf_counter()
                if name == "one_request":
                    handles = await llm.submit_all(ids, params)
                else:
                    handles = [await llm.submit(ids, one) for one in params]
                computed = sum(await asyncio.gather(*map(_computed, handles)))
                rounds.append((computed, time.perf_counter() - begin))
        return {name: _summary(rounds[1:]) for name, rounds in figures.items()}  # the first round warms up
    finally:
        await llm.close()


def _params(seed: int) -> SamplingParams:
    return SamplingParams(seed=seed, max_tokens=NUM_OUTPUT, ignore_stop_tokens=True)


async def _computed(handle: RequestHandle) -> int:
    """Tokens of the prompt that were computed for this completion alone."""
    usage = [delta async for delta in handle][-1].usage
    assert usage is not None, "the last delta has it"
    return usage.prompt_tokens - usage.cached_tokens


def _summary(rounds: list[tuple[int, float]]) -> dict[str, Any]:
    return {"computed": max(computed for computed, _ in rounds), "seconds": results.summary([s for _, s in rounds])}


def main() -> None:
    record = results.environment(len(os.sched_getaffinity(0)))
    record |= {"choices": NUM_CHOICES, "prompt": NUM_PROMPT, "output": NUM_OUTPUT, "figures": asyncio.run(measure())}
    results.write("many_choices", record)
    for name, found in record["figures"].items():
        seconds = found["seconds"]
        print(f"{name:16} {found['computed']:6} tokens   {seconds['median']:7.2f} s   spread {seconds['spread']:.0%}")
    print(f"medians of {ROUNDS} rounds; load before {record['load_before']} cores")


if __name__ == "__main__":
    main()
