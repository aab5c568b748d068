"""Answers the lines of standard input while they are computed, with the adapter of the command line.

echo "Where is my refund?" | python examples/python/stream_answers.py intaglio-triage
"""

from __future__ import annotations

import asyncio
import sys

from intaglio import AdapterError, AsyncLLM, SamplingParams


async def main() -> None:
    adapter = sys.argv[1] if len(sys.argv) > 1 else None
    async with await AsyncLLM.open() as llm:
        for line in sys.stdin:
            try:
                async for delta in llm.stream(
                    line.strip(), SamplingParams(temperature=0, max_tokens=60), adapters=adapter
                ):
                    print(delta.text, end="", flush=True)
            except AdapterError as error:
                sys.exit(f"{adapter}: {error}")
            print()


if __name__ == "__main__":
    asyncio.run(main())
