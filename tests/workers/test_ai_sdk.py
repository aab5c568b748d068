"""The AI SDK with workers-ai-provider inside of a Worker, over env.AI as `wrangler dev` binds it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.servers import LiveServer
from tests.workers.conftest import ADAPTER, ANSWER_DEADLINE_S, MODEL, EnvAI, wrangler_dev

pytestmark = pytest.mark.clients

CALL = {"prompt": "Name a fruit.", "maxOutputTokens": 8, "temperature": 0}
SAME_OVER_REST = {"messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 8, "temperature": 0}


@pytest.fixture(scope="module")
def env_ai(token_server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnvAI]:
    with wrangler_dev("wrangler.jsonc", token_server, tmp_path_factory.mktemp("home")) as worker:
        yield EnvAI(worker, token_server)


def ask(env_ai: EnvAI, **call: Any) -> dict[str, Any]:
    answer = httpx.post(f"{env_ai.worker.url}/sdk", json={"model": MODEL, **call}, timeout=ANSWER_DEADLINE_S)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("settings", [{}, {"lora": ADAPTER}])
def test_text_finish_reason_and_usage_equal_the_servers(env_ai: EnvAI, stream: bool, settings: dict[str, str]) -> None:
    plain = env_ai.over_rest(**SAME_OVER_REST, **settings)
    told = ask(env_ai, **CALL, settings=settings, stream=stream)
    assert told["text"] == plain["response"] != ""
    assert told["finishReason"] == plain["finish_reason"]
    assert told["usage"]["inputTokens"] == plain["usage"]["prompt_tokens"]
    assert told["usage"]["outputTokens"] == plain["usage"]["completion_tokens"]
    if stream:
        assert len(told["pieces"]) > 1


def test_an_error_keeps_its_code_and_is_not_retried(env_ai: EnvAI) -> None:
    missing = ask(env_ai, **CALL, settings={"lora": "nobody"})["error"]
    assert "3037: Finetune nobody not found" in missing["message"]
    assert missing.get("isRetryable") is not True
    unknown = ask(env_ai, **CALL | {"model": "@cf/no/such-model"})["error"]
    assert unknown["statusCode"] == 400
    assert "5007: No such model @cf/no/such-model" in unknown["message"]
