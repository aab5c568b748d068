"""The blocks of the quick start, and of the pages about prompting and streaming, run against a live server."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from scripts.readme_smoke import check_response, read_steps

from tests.clients.clients import NODE_BIN
from tests.helpers.commands import output_of
from tests.helpers.servers import LiveServer, serve

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("quick_start.md", "prompting.md", "streaming.md")
PAGE_URL = "http://127.0.0.1:8080"
COUNTED = "four, five, six, seven,"  # what every program of the page on streaming prints


@dataclass(frozen=True, slots=True)
class Program:
    """A block in a programming language."""

    page: str
    language: str
    text: str


def page_text(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


STEPS = [(name, step) for name in PAGES for step in read_steps(page_text(name))]
PROGRAMS = [
    Program(name, *found)
    for name in PAGES
    for found in re.findall(r"^```(python|js)\n(.*?)^```$", page_text(name), re.MULTILINE | re.DOTALL)
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve([], tmp_path_factory.mktemp("data")) as running:
        yield running
        assert "Traceback" not in running.log.text, running.log.text


def programs_in(language: str) -> list[Program]:
    return [one for one in PROGRAMS if one.language == language]


@pytest.mark.slow
@pytest.mark.bundled_model
@pytest.mark.parametrize("number", range(len(STEPS)))
def test_a_command_gets_the_response_that_the_page_shows(server: LiveServer, number: int) -> None:
    name, step = STEPS[number]
    assert PAGE_URL in step.command, name
    check_response(step, output_of(["bash", "-c", step.command.replace(PAGE_URL, server.url)], folder=ROOT))


@pytest.mark.slow
@pytest.mark.bundled_model
@pytest.mark.parametrize("number", range(len(programs_in("python"))))
def test_a_python_program_prints_the_completion(server: LiveServer, number: int) -> None:
    text = programs_in("python")[number].text.replace(PAGE_URL, server.url)
    assert COUNTED in output_of([sys.executable, "-c", text], folder=ROOT)


@pytest.mark.clients
def test_a_program_in_javascript_prints_the_completion(server: LiveServer) -> None:
    (program,) = programs_in("js")
    text = program.text.replace(PAGE_URL, server.url)
    output = output_of([str(NODE_BIN / "node"), "--input-type=module", "--eval", text], folder=ROOT)
    assert COUNTED in output
    assert "(cut)" not in output


def test_the_function_of_a_worker_is_that_of_the_example_which_a_test_runs() -> None:
    (block,) = re.findall(r"^```javascript\n(.*?)^```$", page_text("streaming.md"), re.MULTILINE | re.DOTALL)
    assert block in (ROOT / "workers" / "example" / "src" / "index.js").read_text("utf-8")


def test_each_page_has_blocks_that_are_run() -> None:
    assert {name for name, _ in STEPS} == set(PAGES)
    assert {one.language for one in PROGRAMS} == {"python", "js"}
