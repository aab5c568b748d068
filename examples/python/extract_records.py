"""Takes records of one shape out of texts: every completion is JSON that the pydantic model accepts.

python examples/python/extract_records.py
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from intaglio import LLM, FinishReason, SamplingParams

EXAMPLES = """\
Text: On Monday Ada Byron ordered 3 lamps.
Record: {"name": "Ada Byron", "item": "lamp", "count": 3, "day": "Monday"}
Text: Four chairs for Max Planck, please, by Friday.
Record: {"name": "Max Planck", "item": "chair", "count": 4, "day": "Friday"}
"""
TEXTS = ["Nora Patel needs two desks on Tuesday.", "Sunday: 12 cups for Ines Duarte."]


class Record(BaseModel):
    name: Annotated[str, Field(max_length=40)]
    item: Annotated[str, Field(max_length=20)]
    count: Annotated[int, Field(ge=1, le=1000)]
    day: Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def main() -> None:
    with LLM() as llm:
        prompts = [f"{EXAMPLES}Text: {text}\nRecord: " for text in TEXTS]
        params = SamplingParams(temperature=0, max_tokens=80)
        for completion in llm.generate(prompts, params, raw=True, json_schema=Record):
            assert completion.finish_reason is FinishReason.STOP
            print(Record.model_validate_json(completion.text))


if __name__ == "__main__":
    main()
