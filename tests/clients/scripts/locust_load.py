"""A load test with the OpenAI user of locust: `locust` on PyPI, run by itself, without its page

The script is the locustfile. The environment says how often each user asks; `locust -f locust_load.py` runs until all
users have asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

MODEL = os.environ["MODEL"]
ADAPTER = os.environ["ADAPTER"]
UNKNOWN = f"{MODEL}:no-such-adapter"
USERS = 2
os.environ["OPENAI_BASE_URL"] = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"
os.environ["OPENAI_API_KEY"] = "any"  # locust.contrib.oai insists on one when it is imported
FIGURES = Path("figures.json")
ANSWERS = Path("answers.jsonl")


def locust() -> dict[str, Any]:
    """Run this file as a locustfile; what the users were answered, and locust's own figures."""
    command = [sys.executable, "-m", "locust", "-f", __file__, "--headless", "--users", str(USERS)]
    done = subprocess.run(
        [*command, "--spawn-rate", "100", "--json-file", "figures", "--exit-code-on-error", "0"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    answers = [json.loads(line) for line in ANSWERS.read_text().splitlines()]
    return {"answers": answers, "figures": json.loads(FIGURES.read_text())}


if __name__ == "__main__":
    from report import report

    found = locust()

    def answers_of(model: str) -> list[str]:
        return [text for asked, text in found["answers"] if asked == model]

    def figures_of(model: str) -> list[int]:
        """What locust counted: requests, failures."""
        (entry,) = [entry for entry in found["figures"] if entry["name"] == model]
        return [entry["num_requests"], entry["num_failures"]]

    def chat() -> list[Any]:
        return [answers_of(MODEL), figures_of(MODEL)]

    def adapter() -> list[Any]:
        return [[answers_of(name), figures_of(name)] for name in (ADAPTER, f"{MODEL}:{ADAPTER}")]

    def errors() -> list[Any]:
        return [answers_of(UNKNOWN), figures_of(UNKNOWN)]

    report(chat, adapter, errors)
else:
    from locust import task
    from locust.contrib.oai import OpenAIUser
    from locust.exception import StopUser
    from openai import NotFoundError

    class Caller(OpenAIUser):
        """Asks every model once; locust's figures have a line for each."""

        asked = 0

        def ask(self, model: str) -> str:
            messages: Any = [{"role": "user", "content": os.environ["QUESTION"]}]
            with self.client.rename_request(model):
                try:
                    answer = self.client.chat.completions.create(
                        model=model, messages=messages, temperature=0, max_tokens=12
                    )
                except NotFoundError as error:
                    return str(error)
            return answer.choices[0].message.content

        @task
        def ask_every_model(self) -> None:
            for model in (MODEL, ADAPTER, f"{MODEL}:{ADAPTER}", UNKNOWN):
                with ANSWERS.open("a") as file:
                    file.write(json.dumps([model, self.ask(model)]) + "\n")
            type(self).asked += 1
            if self.asked == USERS:
                self.environment.runner.quit()
            raise StopUser
