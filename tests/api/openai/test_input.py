"""Every field of the OpenAI-compatible bodies: what reaches the engine, and what is refused in which words."""

from __future__ import annotations

import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from intaglio.api.http.errors import wire_error
from intaglio.api.model_names import NamedModel
from intaglio.api.openai.input import read_chat, read_completions, with_choice_seed
from intaglio.api.openai.schema import CHAT_SCHEMA, COMPLETIONS_SCHEMA, chat_check, completions_check
from intaglio.errors import BadInputError, IntaglioError
from intaglio.request import SamplingParams
from tests.api.conftest import MODEL
from tests.api.openai.wire import CHAT, COMPLETIONS, V1, body_of, chat, complete, refusal_of
from tests.helpers.drawn_cases import drawn_cases
from tests.helpers.fakes import FakeLLM

CHAT_CHECK, COMPLETIONS_CHECK = chat_check(), completions_check()


def sent(llm: FakeLLM) -> SamplingParams:
    """What the last request asked of the engine."""
    return llm.submitted[-1][1]


@pytest.mark.parametrize(
    ("fields", "reached"),
    [
        ({}, {"temperature": 0.6, "max_tokens": 256, "top_p": None, "seed": None, "logprobs": None, "logit_bias": {}}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"top_p": 0.5, "top_k": 64}, {"top_p": 0.5, "top_k": 64}),
        ({"frequency_penalty": -2, "presence_penalty": 2}, {"frequency_penalty": -2.0, "presence_penalty": 2.0}),
        ({"repetition_penalty": 1.5}, {"repetition_penalty": 1.5}),
        ({"seed": 0}, {"seed": 0}),
        ({"seed": -1}, {"seed": 2**64 - 1}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5.0}, {"max_tokens": 5}),
        ({"logit_bias": {"7": -100, "8": 1.5}}, {"logit_bias": {7: -100.0, 8: 1.5}}),
        ({"temperature": None, "max_tokens": None, "n": None, "stop": None, "logit_bias": None}, {"max_tokens": None}),
        ({"max_tokens": -1}, {"max_tokens": None}),
        ({"max_completion_tokens": None}, {"max_tokens": None}),
        ({"max_tokens": None, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"top_k": 0}, {"top_k": None}),
        ({"top_k": -1}, {"top_k": None}),
        ({"min_p": 0.25, "min_tokens": 3}, {"min_p": 0.25, "min_tokens": 3}),
        ({"ignore_eos": True, "stop_token_ids": [7, 9]}, {"ignore_stop_tokens": True, "stop_token_ids": (7, 9)}),
    ],
)
def test_settings_reach_the_engine(
    client: TestClient, llm: FakeLLM, fields: dict[str, Any], reached: dict[str, Any]
) -> None:
    for response in (chat(client, **fields), complete(client, **fields)):
        body_of(response)
        assert {name: getattr(sent(llm), name) for name in reached} == reached


def test_stop_is_a_text_or_several(client: TestClient, llm: FakeLLM) -> None:
    chat(client, stop="END")
    assert llm.submitted[-1][3] == ("END",)
    complete(client, stop=["a", "b"])
    assert llm.submitted[-1][3] == ("a", "b")


def test_both_names_of_max_tokens_are_one_setting(client: TestClient, llm: FakeLLM) -> None:
    for fields in ({"max_completion_tokens": 9}, {"max_completion_tokens": 9, "max_tokens": 9}):
        body_of(chat(client, **fields))
        assert sent(llm).max_tokens == 9
    assert refusal_of(chat(client, max_completion_tokens=9, max_tokens=8))[2].endswith(
        "max_tokens is 8 and max_completion_tokens is 9; give one of them"
    )


def test_logprobs_reach_the_engine_as_a_number(client: TestClient, llm: FakeLLM) -> None:
    for fields, number in (
        ({"logprobs": True}, 0),
        ({"logprobs": True, "top_logprobs": 20}, 20),
        ({"logprobs": False}, None),
    ):
        body_of(chat(client, **fields))
        assert sent(llm).logprobs == number
    body_of(complete(client, logprobs=5))
    assert sent(llm).logprobs == 5


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "prediction": {"content": "x"}},
        {"n": 1, "modalities": ["text"], "parallel_tool_calls": True, "reasoning_effort": "none"},
        {
            "stream_options": {"include_usage": True},
            "logit_bias": None,
            "tools": [],
            "functions": [],
            "options": 3,
        },
    ],
)
def test_harmless_fields_are_tolerated(client: TestClient, fields: dict[str, Any]) -> None:
    assert body_of(chat(client, **fields))["choices"][0]["message"]["content"] == "two one user:"


def test_the_developer_role_is_the_system_role(client: TestClient, llm: FakeLLM) -> None:
    messages = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hi"}]
    body_of(client.post(CHAT, json={"model": MODEL, "messages": messages}))
    assert llm.submitted[-1][0].startswith("system: be brief")


@pytest.mark.parametrize(
    ("fields", "ending"),
    [
        ({}, (True, False)),
        ({"add_generation_prompt": True}, (True, False)),
        ({"add_generation_prompt": False}, (False, False)),
        ({"continue_final_message": True}, (False, True)),
        ({"continue_final_message": True, "add_generation_prompt": False}, (False, True)),
        ({"continue_final_message": False, "add_generation_prompt": None}, (True, False)),
    ],
)
@pytest.mark.parametrize("path", [CHAT, f"{V1}/tokenize"])
def test_a_chat_says_how_its_prompt_ends(
    client: TestClient, llm: FakeLLM, path: str, fields: dict[str, Any], ending: tuple[bool, bool]
) -> None:
    messages = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    body_of(client.post(path, json={"model": MODEL, "messages": messages, **fields}))
    assert llm.endings == [ending]


CHAT_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model is missing"),
    ({"model": 3}, "model is 3; a string is needed"),
    ({"messages": None}, "messages is missing"),
    ({"messages": []}, "messages is empty; at least 1 item is needed"),
    ({"messages": "hi"}, "messages is \"hi\"; a list is needed"),
    ({"messages": [{"content": "x"}]}, "messages[0].role is missing"),
    ({"temperature": 9}, "temperature is 9, more than 5"),
    ({"temperature": "0.5"}, "temperature is \"0.5\"; a number is needed"),
    ({"top_p": -1}, "top_p is -1, less than 0"),
    ({"top_k": -2}, "top_k is -2, less than -1"),
    ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5, more than 2"),
    ({"presence_penalty": -3}, "presence_penalty is -3, less than -2"),
    ({"seed": 2**63}, "seed is 9223372036854775808, more than 9223372036854775807"),
    ({"seed": 1.5}, "seed is 1.5; an integer is needed"),
    ({"max_tokens": -2}, "max_tokens is -2, less than -1"),
    ({"n": 0}, "n is 0, less than 1"),
    ({"n": 129}, "n is 129, more than 128"),
    ({"stop": ["x"] * 17}, "stop has 17 items, more than 16"),
    ({"stop": ""}, "stop is empty; at least 1 character is needed"),
    ({"stream": "true"}, "stream is \"true\"; true or false is needed"),
    ({"logprobs": 3}, "logprobs is 3; true or false is needed"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs is 21, more than 20"),
    ({"top_logprobs": 3}, "top_logprobs needs logprobs to be true"),
    ({"logit_bias": {"7": 101}}, 'logit_bias[7] is 101, more than 100'),
    ({"logit_bias": {"hello": 1}}, "logit_bias has the key 'hello', which is not a token id"),
    ({"logit_bias": {"07": 1, "7": 2}}, "logit_bias has the key '07', which is not a token id"),
    ({"logit_bias": {"5000": 1}}, "logit_bias has the token id 5000; this model's ids are < 5000"),
    ({"lora": 3}, "lora is 3; a string or a list is needed"),
    ({"options": {"lora": 3}}, "lora is 3; a string or a list is needed"),
    ({"lora": [{"name": "a", "scale": 11}]}, "lora[0].scale is 11, more than 10"),
    ({"options": {"lora": ["a", {"name": "b", "scale": "1"}]}},
     'lora[1].scale is "1"; a number is needed'),
    ({"lora": ["a", "a"]}, "lora[1] names 'a', which lora[0] names already; name each adapter once"),
    ({"modalities": ["text", "audio"]},
     "modalities is not supported: this server answers in text: [\"text\"]. It is [\"text\", \"audio\"]"),
    ({"audio": {"voice": "x"}},
     "audio is not supported: this server answers in text; leave it out. It is {\"voice\": \"x\"}"),
    ({"web_search_options": {}},
     "web_search_options is not supported: this server does not search the web; put what it "
     "should know into the messages. It is {}"),
    ({"functions": [{"name": "x"}]}, "functions is not supported: send them as 'tools'. It is [{\"name\": \"x\"}]"),
    ({"function_call": "auto"}, "function_call is not supported: send it as 'tool_choice'. It is \"auto\""),
    ({"tool_choice": "required"}, "tool_choice requires a call, but there are no tools"),
    ({"continue_final_message": True, "add_generation_prompt": True},
     "continue_final_message and add_generation_prompt are both true: the last message is continued, or a new "
     "one is begun"),
    ({"continue_final_message": True}, "continue_final_message is true, but messages[0].role is \"user\"; only a "
     "message of the assistant can be continued"),
    ({"continue_final_message": 1}, "continue_final_message is 1; true or false is needed"),
    ({"add_generation_prompt": "no"}, "add_generation_prompt is \"no\"; true or false is needed"),
    ({"echo": True}, "echo is for completions: a chat answers with the new message alone"),
    ({"response_format": {}}, "response_format.type is null; json_object, json_schema or text is needed"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "words"), CHAT_REFUSALS)
def test_chat_refuses_in_the_words_of_the_native_route(
    client: TestClient, llm: FakeLLM, fields: dict[str, Any], words: str
) -> None:
    assert refusal_of(chat(client, **fields)) == (400, 5006, f"AiError: Bad input: Error: {words}")
    assert llm.submitted == []


COMPLETIONS_REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt is missing"),
    ({"prompt": ""}, "prompt is empty; at least 1 character is needed"),
    ({"prompt": []}, "prompt is empty; at least 1 item is needed"),
    ({"prompt": [[]]}, "prompt[0] is empty; at least 1 item is needed"),
    ({"prompt": 3}, "prompt is 3; a string or a list is needed"),
    ({"prompt": [-1]}, "prompt[0] is -1, less than 0"),
    ({"prompt": [[0, -1]]}, "prompt[0][1] is -1, less than 0"),
    ({"prompt": [[0], [5000]]}, "prompt has the token id 5000; this model's ids are < 5000"),
    ({"prompt": ["a", 1]}, "prompt mixes integer and string; one kind is needed"),
    ({"prompt": ["a"] * 65, "n": 2}, "65 in prompt times n 2 are 130 answers, which must be <= 128"),
    ({"stop": ["a" * 1025]}, "stop[0] has 1025 characters, more than 1024"),
    ({"best_of": 3}, "best_of is 3 and n is 1; every answer that is made is sent"),
    (
        {"suffix": "x"},
        "suffix is not supported: these models do not fill in text between two others; send the "
        'text before it as the prompt. It is "x"',
    ),
    ({"prompt_logprobs": 21}, "prompt_logprobs is 21, more than 20"),
    ({"prompt_logprobs": -1}, "prompt_logprobs is -1, less than 0"),
    (
        {"prompt_logprobs": 0, "stream": True},
        "prompt_logprobs does not go with stream: streams have no field for it",
    ),
    ({"tools": [{"name": "x"}]}, 'tools is not supported: tools are for chat/completions. It is [{"name": "x"}]'),
    ({"max_completion_tokens": "9"}, 'max_completion_tokens is "9"; an integer is needed'),
    ({"logprobs": True}, "logprobs is true; an integer is needed"),
    ({"logprobs": 21}, "logprobs is 21, more than 20"),
]


@pytest.mark.parametrize(("fields", "words"), COMPLETIONS_REFUSALS)
def test_completions_refuse_in_the_words_of_the_native_route(
    client: TestClient, llm: FakeLLM, fields: dict[str, Any], words: str
) -> None:
    assert refusal_of(complete(client, **fields)) == (400, 5006, f"AiError: Bad input: Error: {words}")
    assert llm.submitted == []


def test_best_of_equal_to_n_is_accepted(client: TestClient) -> None:
    assert len(body_of(complete(client, n=2, best_of=2, suffix=""))["choices"]) == 2


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, 3003),
        (b"{", 400, 5006),
        (b"[]", 400, 5006),
        (b"null", 400, 5006),
        (b'{"model": "\xff"}', 400, 5006),
        (b"[" * 10_000, 400, 5006),
        (b'"' + b"x" * 20_000 + b'"', 413, 3006),
    ],
)
def test_a_body_that_is_not_a_json_object_is_refused(
    client: TestClient, path: str, content: bytes, status: int, code: int
) -> None:
    assert refusal_of(client.post(path, content=content))[:2] == (status, code)


def test_more_tokens_than_the_window_are_413(client: TestClient) -> None:
    assert refusal_of(complete(client, "a b c", max_tokens=998))[:2] == (413, 3010)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted({*CHAT_SCHEMA["properties"], *COMPLETIONS_SCHEMA["properties"]})


@drawn_cases(300)
@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_value_of_a_field_is_read_or_refused(fields: dict[str, Any]) -> None:
    chat_of, prompt = {"messages": [{"role": "user", "content": "x"}]}, {"prompt": "x"}
    for check, read, asks in ((CHAT_CHECK, read_chat, chat_of), (COMPLETIONS_CHECK, read_completions, prompt)):
        known = {name: value for name, value in fields.items() if name in check.schema["properties"]}
        try:
            asked = read(check.read({"model": MODEL, **asks, **known}), NamedModel(MODEL))
        except IntaglioError as refused:
            assert wire_error(refused).status == 400
        else:
            assert 1 <= asked.num_choices <= 128


def test_very_many_prompts_are_refused_before_a_request_is_made_of_each() -> None:
    body = completions_check().read({"model": MODEL, "prompt": ["a"] * 400_000})
    began = time.process_time()
    with pytest.raises(BadInputError, match=r"400000 .*128"):
        read_completions(body, NamedModel(MODEL))
    assert time.process_time() - began < 1  # it took two seconds


def test_choice_seeds_are_fixed_numbers() -> None:
    """They are part of what a seed promises: they must not change from one version to the next."""
    params = SamplingParams(seed=42)
    seeds = [with_choice_seed(params, number).seed for number in range(3)]
    assert seeds == [
        42,
        278651779053087998,
        14840890843343779510,
    ]
