from __future__ import annotations

import asyncio
from pathlib import Path

from intaglio import SamplingParams
from intaglio.llm import RequestHandle, RunningModel, Usage
from intaglio.settings import load_settings


async def _usage(handle: RequestHandle) -> Usage:
    last = [delta async for delta in handle][-1]
    assert last.usage is not None
    return last.usage


def test_several_completions_of_a_prompt_compute_it_once(base_folder: Path) -> None:
    async def act() -> None:
        settings = load_settings(cache_dir=base_folder / "cache", kv_cache_bytes=1 << 24, prefix_cache=False)
        llm = await RunningModel.start("tiny", base_folder, settings)
        try:
            ids = llm.render_prompt("a b c d", raw=True)
            handles = await llm.submit_all(ids, [SamplingParams(max_tokens=2, seed=seed) for seed in range(4)])
            usage = await asyncio.gather(*map(_usage, handles))
            assert [one.cached_tokens for one in usage] == [0, *[len(ids) - 1] * 3]
            assert [one.prompt_tokens for one in usage] == [len(ids)] * 4
        finally:
            await llm.close()

    asyncio.run(act())
