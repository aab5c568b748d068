"""The example Worker under `wrangler dev`, and its page in a real browser: the text appears as the server makes it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from playwright.sync_api import Error, Page, expect, sync_playwright

from tests.helpers.servers import LiveServer
from tests.workers.conftest import ANSWER_DEADLINE_S, MODEL, wait_for_ends, wrangler_dev
from tests.workers.worker_process import RunningWorker

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]

pytestmark = [
    pytest.mark.clients,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]

# Keeps every text that the answer has had.
WATCH = """() => {
    const answer = document.querySelector("output");
    window.seen = [];
    new MutationObserver(() => window.seen.push(answer.textContent)).observe(answer, {childList: true});
}"""


@pytest.fixture(scope="module")
def worker(open_server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    with wrangler_dev("../../workers/example/wrangler.jsonc", open_server, tmp_path_factory.mktemp("home")) as worker:
        yield worker


@pytest.fixture
def page(worker: RunningWorker) -> Iterator[Page]:
    """The example's page. A script error or a request to anywhere else fails the test."""
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()

        def on_page_error(error: Error) -> None:
            faults.append(str(error))

        page.on("pageerror", on_page_error)
        page.on("request", lambda one: None if one.url.startswith((worker.url, "data:")) else faults.append(one.url))
        page.goto(worker.url)
        page.evaluate(WATCH)
        yield page
        browser.close()
    assert faults == []


def over_rest(server: LiveServer, prompt: str, lora: str) -> str:
    body = {"prompt": prompt, "lora": lora, "max_tokens": 512, "temperature": 0}
    answer = httpx.post(f"{server.account()}/ai/run/{MODEL}", json=body, timeout=ANSWER_DEADLINE_S)
    text: str = answer.json()["result"]["response"]
    return text


def ask(page: Page, prompt: str, lora: str) -> None:
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Adapter").fill(lora)
    page.get_by_role("button", name="Run").click()


def test_the_text_appears_piece_by_piece_and_equals_the_servers(page: Page, open_server: LiveServer) -> None:
    prompt = "Please send two wool scarves to Ines Duarte in Funchal."
    ask(page, prompt, "intaglio-json")
    stop = page.get_by_role("button", name="Stop")
    expect(page.locator("output")).to_contain_text("}", timeout=ANSWER_DEADLINE_S * 1000)
    expect(stop).to_be_disabled()
    seen: list[str] = page.evaluate("window.seen")
    assert len(seen) > 10
    assert all(later.startswith(sooner) for sooner, later in pairwise(seen))
    assert page.locator("output").text_content() == seen[-1] == over_rest(open_server, prompt, "intaglio-json")


def test_stop_ends_the_run_on_the_server(page: Page, open_server: LiveServer) -> None:
    before = len(open_server.log.text)
    ask(page, "Tell me a long story about the sea.", "")
    expect(page.locator("output")).not_to_be_empty(timeout=ANSWER_DEADLINE_S * 1000)
    page.get_by_role("button", name="Stop").click()
    wait_for_ends(open_server, before, "abort")
    expect(page.get_by_role("alert")).to_be_empty()


def test_a_failure_is_shown_with_its_code(page: Page) -> None:
    ask(page, "x", "nobody")
    expect(page.get_by_role("alert")).to_contain_text("InferenceUpstreamError: 3037: Finetune nobody not found")
    expect(page.locator("output")).to_be_empty()


def test_the_models_come_through_the_binding(worker: RunningWorker) -> None:
    models = httpx.get(f"{worker.url}/models", timeout=ANSWER_DEADLINE_S).json()
    assert MODEL in [model["name"] for model in models]
