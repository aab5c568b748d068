"""Sorts messages and reads their facts, with a different adapter for each column, in one batch.

python examples/python/sort_messages.py
"""

from __future__ import annotations

from intaglio import LLM, SamplingParams

MESSAGES = [
    "The parcel with three desk lamps that Nora Patel in Lisbon ordered never came.",
    "Ines Duarte in Funchal was charged twice for two wool scarves.",
    "I want to send back the four chairs that Max Planck in Berlin ordered.",
]


def main() -> None:
    with LLM() as llm:
        greedy = SamplingParams(temperature=0, max_tokens=60)
        adapters = ["intaglio-triage"] * len(MESSAGES) + ["intaglio-json"] * len(MESSAGES)
        completions = llm.generate(MESSAGES * 2, greedy, adapters=adapters)
    kinds, facts = completions[: len(MESSAGES)], completions[len(MESSAGES) :]
    for message, kind, fact in zip(MESSAGES, kinds, facts, strict=True):
        print(f"{kind.text:12} {message}\n{'':12} {fact.text}")


if __name__ == "__main__":
    main()
