"""The commands of docs/adapters.md run in order against a live server, with a shorter training."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from scripts.readme_smoke import read_steps

from intaglio.settings import DEFAULT_MODEL_ID
from tests.helpers.commands import output_of
from tests.helpers.servers import LiveServer, serve

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PAGE_URL = "http://127.0.0.1:8080"
# The options of the page's training, and those of the test, which are enough to show that it works.
FULL, SHORT = "--steps 40", "--steps 12 --batch-size 4 --held-out 0.02 --threads 2"
QUESTION = "My parcel never came."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve([], tmp_path_factory.mktemp("data")) as running:
        yield running
        assert "Traceback" not in running.log.text, running.log.text


def ask(server: LiveServer, **body: Any) -> str:
    route = f"{server.account()}/ai/run/{DEFAULT_MODEL_ID}"
    reply = httpx2.post(route, json={"prompt": QUESTION, "temperature": 0, "max_tokens": 24} | body, timeout=60)
    assert reply.status_code == 200, reply.text
    return str(reply.json()["result"]["response"])


def run(command: str, server: LiveServer, folder: Path) -> str:
    """Standard output of a block that runs in `folder`, with the test's server and environment."""
    command = command.replace(PAGE_URL, server.url).replace(".venv-train/bin/", "").replace(FULL, SHORT)
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "INTAGLIO_URL": server.url}
    environment.setdefault("OMP_WAIT_POLICY", "passive")  # other tests may run on the same cores; the page has it too
    shell = ["bash", "-euo", "pipefail", "-c", command]
    return output_of(shell, folder=folder, environment=environment, deadline_s=600)


def test_the_page_leads_from_an_adapter_and_from_data_to_answers(server: LiveServer, tmp_path: Path) -> None:
    for name in ("src", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    blocks = read_steps((ROOT / "docs" / "adapters.md").read_text())
    assert len(blocks) >= 10
    assert sum(FULL in block.command for block in blocks) == 1
    shown = ""
    for block in blocks:
        output = run(block.command, server, tmp_path)
        if block.command.startswith("curl"):
            answered = json.loads(output)
            assert answered["success"] is True
            assert answered["result"]["response"]
            if block.expected is not None:
                assert block.expected["result"].items() <= answered["result"].items()
        if FULL in block.command:
            shown = output
            check_effect(server)
    check_output(shown)


def check_effect(server: LiveServer) -> None:
    with_adapter = ask(server, lora="my-triage")
    assert with_adapter
    assert with_adapter != ask(server)


def check_output(output: str) -> None:
    """The dtype and the measured speeds, both evaluations, whose loss must fall, and the server's verification."""
    speed = r"\S+ GMAC/s forward and \S+ backward"
    dtype = rf"^the base computes in (float32|bfloat16) \(measured here: float32 {speed}, bfloat16 {speed}\)$"
    assert re.search(dtype, output, re.MULTILINE)
    assert re.search(r"^trained on [\d,]+ tokens in \d+ s, [1-9]\d* tokens per second$", output, re.MULTILINE)
    before, after = (float(loss) for loss in re.findall(r"held-out loss (\d+\.\d+)", output))
    assert after < before / 2
    assert re.search(r"^step +12/12 ", output, re.MULTILINE)
    assert re.search(r"verification +verified in .* agreement with the reference", output)
