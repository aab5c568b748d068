"""Inspect, the UK AI Security Institute's evaluations: `inspect-ai` on PyPI"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig, ResponseSchema, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import ToolFunction, tool
from inspect_ai.util import json_schema
from pydantic import BaseModel
from report import report

MODEL = os.environ["MODEL"]
QUESTION = os.environ["QUESTION"]
ADDRESS = f"{os.environ['BASE_URL']}/accounts/{os.environ['ACCOUNT']}/ai/v1"


Category = Literal["billing", "shipping", "returns", "other"]


class Ticket(BaseModel):
    category: Category
    urgent: bool


@tool
def open_ticket():
    async def execute(team: Category):
        """Open a ticket for a complaint.

        Args:
            team: who takes it
        """
        return f"opened for {team}"

    return execute


def run(model: str, config: GenerateConfig, solver: Any = None, target: str = "order") -> Any:
    """One evaluation of one sample: `openai-api/<any name>/<model>`, with the address in model_base_url."""
    task = Task(dataset=[Sample(input=QUESTION, target=target)], solver=solver or generate(), scorer=includes())
    used = get_model(f"openai-api/intaglio/{model}", base_url=ADDRESS, api_key="any", config=config)
    (log,) = eval(task, model=used, display="none", log_dir="logs", max_retries=0)
    if log.status != "success":
        raise RuntimeError(log.error.message)
    return log


def answer(model: str) -> str:
    return run(model, GenerateConfig(temperature=0, max_tokens=12)).samples[0].output.completion


def chat() -> str:
    return answer(MODEL)


def adapter() -> list[str]:
    name = os.environ["ADAPTER"]
    return [answer(name), answer(f"{MODEL}:{name}")]


def evaluate() -> list[Any]:
    """The same sample with a right and a wrong target: accuracy 1 and 0."""
    config = GenerateConfig(temperature=0, max_tokens=12)
    logs = [run(MODEL, config, target=target) for target in ("order", "no such text")]
    return [log.results.scores[0].metrics["accuracy"].value for log in logs]


def structured() -> Any:
    schema = ResponseSchema(name="ticket", json_schema=json_schema(Ticket), strict=True)
    config = GenerateConfig(temperature=0, max_tokens=200, response_schema=schema)
    return json.loads(run(os.environ["DEMO_ADAPTER"], config).samples[0].output.completion)


def tools() -> list[Any]:
    """The choice stays in force, so the model would call the tool for ever: one round of calls is enough."""
    config = GenerateConfig(temperature=0, max_tokens=64, parallel_tool_calls=False)
    ticket = use_tools(open_ticket(), tool_choice=ToolFunction("open_ticket"))
    log = run(MODEL, config, [ticket, generate(tool_calls="single")])
    return [[message.role, message.text] for message in log.samples[0].messages if message.role == "tool"]


def errors() -> str:
    try:
        answer(f"{MODEL}:no-such-adapter")
    except RuntimeError as error:
        return str(error)
    return ""


report(chat, adapter, evaluate, structured, tools, errors)
