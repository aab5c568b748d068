"""Token ids of prompts and chats in vLLM's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import MODEL
from tests.api.finetunes.test_routes import create, upload_both
from tests.api.openai.wire import V1, body_of, refusal_of
from tests.helpers.fakes import FakeLLM

TOKENIZE, DETOKENIZE = f"{V1}/tokenize", f"{V1}/detokenize"
MESSAGES = [{"role": "user", "content": "one two"}]


def test_a_prompt_becomes_ids_that_become_its_text_again(client: TestClient) -> None:
    found = body_of(client.post(TOKENIZE, json={"model": MODEL, "prompt": "one two", "return_token_strs": True}))
    assert found["token_strs"] == ["<bos>", "one", "two"]
    assert (found["count"], found["max_model_len"]) == (3, 1000)
    bare = body_of(client.post(TOKENIZE, json={"model": MODEL, "prompt": "one two", "add_special_tokens": False}))
    assert (bare["count"], bare.keys()) == (2, {"count", "max_model_len", "tokens"})
    text = body_of(client.post(DETOKENIZE, json={"model": MODEL, "tokens": bare["tokens"]}))
    assert text == {"prompt": "one two"}


def test_messages_become_the_ids_of_a_chat(client: TestClient) -> None:
    found = body_of(client.post(TOKENIZE, json={"model": MODEL, "messages": MESSAGES, "return_token_strs": True}))
    assert found["token_strs"] == ["user:", "one", "two"]


def test_the_prompt_of_a_chat_with_tools_depends_on_how_they_may_be_chosen(client: TestClient) -> None:
    def count(**choice: Any) -> int:
        sent = {"model": MODEL, "messages": MESSAGES, "tools": [{"name": "get_weather"}], **choice}
        found: int = body_of(client.post(TOKENIZE, json=sent))["count"]
        return found

    assert count() == count(tool_choice="auto")
    assert count(tool_choice="none") == 3 < count(tool_choice="required") != count()
    refusal = refusal_of(client.post(TOKENIZE, json={"model": MODEL, "messages": MESSAGES, "tool_choice": "often"}))
    assert refusal[:2] == (400, 5006)


def test_an_adapter_has_the_tokens_of_its_base_if_it_exists(client: TestClient, adapter_folder: Path) -> None:
    create(client, "mine")
    upload_both(client, adapter_folder, "mine")
    assert body_of(client.post(TOKENIZE, json={"model": f"{MODEL}:mine", "prompt": "a b"}))["count"] == 3
    for path, sent in ((TOKENIZE, {"prompt": "a"}), (DETOKENIZE, {"tokens": [0]})):
        assert refusal_of(client.post(path, json={"model": f"{MODEL}:other", **sent}))[:2] == (404, 3037)


@pytest.mark.parametrize(
    ("path", "sent", "words"),
    [
        (TOKENIZE, {}, "one of prompt and messages is needed"),
        (TOKENIZE, {"prompt": "a", "promt": "b"},
         "promt is not known; did you mean prompt?"),
        (DETOKENIZE, {"tokens": [1], "ids": [2]}, "ids is not known; known: model, tokens"),
        (TOKENIZE, {"prompt": "a", "messages": MESSAGES}, "one of prompt and messages is needed"),
        (TOKENIZE, {"messages": MESSAGES, "continue_final_message": True},
         "continue_final_message is true, but messages[0].role is \"user\"; only a message of the assistant can be "
         "continued"),
        (TOKENIZE, {"prompt": 3}, "prompt is 3; a string is needed"),
        (TOKENIZE, {"messages": []}, "messages is empty; at least 1 item is needed"),
        (TOKENIZE, {"messages": MESSAGES, "chat_template": "x"},
         "chat_template is not supported: the model's own template is used"),
        (DETOKENIZE, {}, "tokens is missing"),
        (DETOKENIZE, {"tokens": [-1]}, "tokens[0] is -1, less than 0"),
        (DETOKENIZE, {"tokens": [5000]}, "tokens has the token id 5000; this model's ids are < 5000"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(
    client: TestClient, path: str, sent: dict[str, Any], words: str
) -> None:
    response = client.post(path, json={"model": MODEL, **sent})
    assert refusal_of(response) == (400, 5006, f"AiError: Bad input: Error: {words}")


def test_without_a_model_the_only_base_answers_and_of_several_none(client: TestClient) -> None:
    status, code, message = refusal_of(client.post(TOKENIZE, json={"prompt": "a"}))
    assert (status, code) == (400, 5006)
    assert "model is needed" in message


def test_an_unknown_model_is_refused(client: TestClient) -> None:
    assert refusal_of(client.post(TOKENIZE, json={"model": "gpt-4o", "prompt": "a"}))[:2] == (400, 5007)


@pytest.mark.parametrize("path", [f"{address}/tokenizer_info" for address in (V1, V1.removesuffix("/v1"), "/v1", "")])
def test_the_tokenizer_says_its_special_tokens_and_its_template(client: TestClient, llm: FakeLLM, path: str) -> None:
    found = body_of(client.get(path, params={"model": MODEL}))
    assert found["tokenizer_class"] == "GemmaTokenizer"
    assert (found["bos_token"], found["eos_token"], found["pad_token"]) == ("<4998>", "<4999>", None)
    assert (found["model_max_length"], found["chat_template"]) == (1000, llm.chat_template)
    assert refusal_of(client.get(path))[2].startswith("AiError: Bad input: Error: model is needed")
    assert refusal_of(client.get(path, params={"model": "x"}))[0] == 400
    assert refusal_of(client.get(path, params={"page": 1}))[:2] == (400, 5006)


def test_tokens_are_counted_beside_v1_too(client: TestClient) -> None:
    """lm_eval takes `/v1/completions` off its address and puts these behind it."""
    address = V1.removesuffix("/v1")
    ids = body_of(client.post(f"{address}/tokenize", json={"model": MODEL, "prompt": "one two"}))["tokens"]
    text = body_of(client.post(f"{address}/detokenize", json={"model": MODEL, "tokens": ids}))["prompt"]
    assert text.endswith("one two")
