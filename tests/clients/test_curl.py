"""curl, with the commands of Cloudflare's documentation."""

from __future__ import annotations

from tests.clients.assertions import assert_adapters_speak, assert_fits_schema, chat_text, prompt_text
from tests.clients.clients import CURL, Client
from tests.clients.conftest import ADAPTER, CATEGORIES, MODEL, Plain
from tests.clients.script_runner import Outcomes
from tests.clients.table import shows

CLIENTS = (CURL,)


@shows("prompt")
def test_a_prompt_gets_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["prompt"]["result"]["response"] == prompt_text(plain)


@shows("chat")
def test_messages_get_the_text(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert shown["chat"]["result"]["response"] == chat_text(plain)


@shows("stream")
def test_a_stream_adds_up_to_the_text_and_ends_with_done(client: Client, shown: Outcomes, plain: Plain) -> None:
    *events, end = shown["stream"]
    assert end == "[DONE]"
    assert "".join(event["response"] for event in events) == prompt_text(plain)
    assert events[-1]["usage"]["completion_tokens"] == 12


@shows("adapter")
def test_adapters_change_the_text_and_raw_may_be_a_string(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_adapters_speak(plain, shown["adapter"]["result"]["response"], shown["demo_adapter"]["result"]["response"])


@shows("finetunes")
def test_a_finetune_is_created_uploaded_by_name_listed_and_used(client: Client, shown: Outcomes, plain: Plain) -> None:
    made = shown["create_finetune"]["result"]
    assert made["description"] == "made with curl"
    for upload in ("upload_weights", "upload_config"):
        assert shown[upload]["success"] is True
        assert shown[upload]["result"]["finetune_id"] == made["id"]
    assert made["id"] in [item["id"] for item in shown["list_finetunes"]["result"]]
    assert shown["public_finetunes"]["result"][0]["public"] is True
    assert shown["own_adapter"]["result"]["response"] == prompt_text(plain, lora=ADAPTER) != prompt_text(plain)


@shows("models")
def test_models_and_their_schemas_are_listed(client: Client, shown: Outcomes) -> None:
    assert MODEL in [model["name"] for model in shown["models"]["result"]]
    assert sorted(shown["schema"]["result"]) == ["input", "output"]


@shows("errors")
def test_an_unknown_adapter_is_an_error_with_a_message(client: Client, shown: Outcomes) -> None:
    answer = shown["errors"]
    (error,) = answer["errors"]
    assert (answer["success"], error["code"]) == (False, 3037)
    assert "Finetune no-such-adapter not found" in error["message"]


@shows("structured")
def test_a_response_fits_a_schema(client: Client, shown: Outcomes, plain: Plain) -> None:
    assert_fits_schema(plain, shown["structured"]["result"]["response"])


@shows("tools")
def test_a_tool_is_called(client: Client, shown: Outcomes) -> None:
    (call,) = shown["tools"]["result"]["tool_calls"]
    assert call["name"] == "open_ticket"
    assert call["arguments"]["team"] in CATEGORIES


@shows("logprobs")
def test_logprobs_come_with_the_tokens_of_the_openai_route(client: Client, shown: Outcomes, plain: Plain) -> None:
    (choice,) = shown["logprobs"]["choices"]
    tokens = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == choice["message"]["content"] == chat_text(plain)
    assert all(token["logprob"] < 0 for token in tokens)


@shows("batch")
def test_a_batch_gets_its_results(client: Client, shown: Outcomes, plain: Plain) -> None:
    responses = shown["batch"]["result"]["responses"]
    assert [item["result"]["response"] for item in responses] == [prompt_text(plain), prompt_text(plain, lora=ADAPTER)]
    assert [item["external_reference"] for item in responses] == ["first", "second"]
