from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel

from intaglio import LLM, AdapterRef, FinishReason, SamplingParams, ScaledAdapter
from intaglio.errors import AdapterError, BadInputError, ChatError, EngineError, GrammarError
from intaglio.llm.inputs import adapter_path
from tests.helpers.adapters import write_peft_adapter
from tests.llm.conftest import GREEDY


def test_one_text_gives_one_completion_and_a_list_gives_a_list(llm: LLM) -> None:
    one = llm.generate("the answer", GREEDY)
    assert [one] == llm.generate(["the answer"], GREEDY)
    assert llm.generate([], GREEDY) == []
    assert one.text != llm.generate("t", GREEDY).text, "a text is one prompt, not one for each letter"


def test_a_chat_a_text_and_lists_of_them_are_answered(llm: LLM) -> None:
    chat = [{"role": "user", "content": "one"}]
    expected = llm.chat(chat, GREEDY)
    assert llm.chat("one", GREEDY) == expected
    assert [one.text for one in llm.chat([chat, chat], GREEDY)] == [expected.text] * 2
    assert [one.text for one in llm.chat(["one", chat], GREEDY)] == [expected.text] * 2
    assert llm.generate("one", GREEDY).text == expected.text, "a prompt is a user's turn unless it is raw"


def test_each_prompt_may_have_sampling_parameters_of_its_own(llm: LLM) -> None:
    short, long = llm.generate(["one", "one"], [SamplingParams(max_tokens=2, temperature=0), GREEDY])
    assert (short.usage.completion_tokens, long.usage.completion_tokens) == (2, 12)
    assert long.text.startswith(short.text)


def test_an_adapter_is_named_by_its_path_and_loaded_once(llm: LLM, tmp_path: Path) -> None:
    folder = write_peft_adapter(tmp_path / "a", llm.config, seed=9)
    ref = llm.load_adapter(folder)
    expected = llm.generate("one", GREEDY, adapters=ref).text
    assert llm.generate("one", GREEDY, adapters=folder).text == expected
    assert llm.generate("one", GREEDY, adapters=str(folder)).text == expected
    mixed = llm.generate(["one", "one", "one"], GREEDY, adapters=[str(folder), None, [ScaledAdapter(ref, 1.0)]])
    assert [one.text == expected for one in mixed] == [True, False, True]
    for file in folder.iterdir():
        file.unlink()
    assert llm.generate("one", GREEDY, adapters=folder).text == expected


def test_one_prompt_takes_a_list_of_adapters_as_a_mix(llm: LLM, tmp_path: Path) -> None:
    folders = [write_peft_adapter(tmp_path / str(seed), llm.config, seed=seed) for seed in (9, 10)]
    (in_list,) = llm.generate(["one"], GREEDY, adapters=[folders])
    assert llm.generate("one", GREEDY, adapters=folders).text == in_list.text
    assert llm.generate("one", GREEDY, adapters=folders[0]).text != in_list.text


def test_a_demo_adapter_is_known_by_its_name() -> None:
    assert (adapter_path("intaglio-json") / "adapter_config.json").is_file()
    with pytest.raises(AdapterError, match=r"'intaglio-jsno' is no folder or file, and no demo adapter.*intaglio-json"):
        adapter_path("intaglio-jsno")


def test_a_folder_hides_a_demo_adapter_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("intaglio-json").mkdir()
    assert adapter_path("intaglio-json") == Path("intaglio-json")


class Animal(BaseModel, extra="forbid"):
    kind: Literal["dog", "fox"]
    legs: Literal[2, 4]


@pytest.mark.parametrize("schema", [Animal, Animal.model_json_schema()], ids=["a pydantic model", "a dict"])
def test_a_completion_follows_a_json_schema(llm: LLM, schema: Any) -> None:
    params = SamplingParams(temperature=1.5, seed=3, max_tokens=60)
    for completion in (
        llm.generate("one", params, json_schema=schema),
        *llm.chat(["one", "two"], params, json_schema=schema),
    ):
        assert completion.finish_reason is FinishReason.STOP
        Animal.model_validate(json.loads(completion.text))


def test_a_schema_that_cannot_be_enforced_is_refused_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(GrammarError, match="objekt"):
        llm.generate("one", json_schema={"type": "objekt"})
    with pytest.raises(BadInputError, match="both given"):
        llm.generate("one", SamplingParams(grammar='start: "a"'), json_schema={"type": "object"})


def test_one_stop_string_needs_no_list(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=24)
    free = llm.generate("one", params)
    stop = free.text[3:8]
    assert llm.generate("one", params, stop=stop).text == free.text[: free.text.index(stop)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda llm: llm.generate(5), r"prompts is 5 \(int\); a text or a list of texts is needed"),
        (lambda llm: llm.generate(None), r"prompts is None"),
        (lambda llm: llm.generate({"role": "user"}), r"prompts is \{'role': 'user'\} \(dict\)"),
        (lambda llm: llm.generate(b"abc"), r"prompts is b'abc' \(bytes\)"),
        (lambda llm: llm.generate(["one", 2]), r"prompts\[1\] is 2 \(int\); a text is needed$"),
        (
            lambda llm: llm.generate([{"role": "user", "content": "a"}]),
            r"prompts\[0\] is .*; messages are for chat\(\)",
        ),
        (lambda llm: llm.chat(5), r"messages is 5 \(int\); a list of messages"),
        (lambda llm: llm.chat([5]), r"messages\[0\] is 5 \(int\)"),
        (
            lambda llm: llm.chat([[{"role": "user", "content": "a"}], {"role": "user"}]),
            r"messages\[1\] is \{'role'.*; a list of messages or a text is needed",
        ),
        (lambda llm: llm.stream([[]]), r"prompt is a list of chats; one text or one list of messages"),
        (lambda llm: llm.generate("one", {"temperature": 0}), r"sampling_params is \{'temperature': 0\} \(dict\)"),
        (lambda llm: llm.generate(["one"], [GREEDY, GREEDY]), "there are 1 prompts and 2 sampling parameters"),
        (lambda llm: llm.generate(["one"], adapters=[None, None]), "there are 1 prompts and 2 adapter selections"),
        (lambda llm: llm.generate("one", adapters=5), r"an adapter is 5 \(int\); a path, the name of a demo adapter"),
        (lambda llm: llm.generate("one", adapters=[None]), r"an adapter is None \(NoneType\)"),
        (lambda llm: llm.generate("one", stop=""), r"a stop string is '' \(str\); a text of one character"),
        (lambda llm: llm.generate("one", stop=[1]), r"a stop string is 1 \(int\)"),
        (lambda llm: llm.generate("one", stop=5), r"stop is 5 \(int\); a text or a list of texts is needed"),
        (lambda llm: llm.generate("one", json_schema="{}"), r"json_schema is '\{\}' \(str\)"),
        (lambda llm: llm.generate("one", json_schema=int), r"json_schema is <class 'int'> \(type\)"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(llm: LLM, call: Any, message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        call(llm)


@pytest.mark.parametrize("message", [{"role": "user"}, {"content": "a"}, {"role": "user", "content": 5}, {}])
def test_a_broken_message_is_named(llm: LLM, message: dict[str, Any]) -> None:
    with pytest.raises(ChatError, match=r"message"):
        llm.chat([message], GREEDY)


def test_an_adapter_of_another_base_is_refused_with_the_reason(llm: LLM) -> None:
    with pytest.raises(AdapterError, match="shape"):
        llm.generate("one", GREEDY, adapters="intaglio-json")
    assert llm.generate("one", GREEDY).text, "nothing else is lost"


def test_a_reference_whose_files_are_gone_is_refused_by_the_request_that_needs_them(llm: LLM, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="nowhere does not exist, or was removed"):
        llm.generate("one", GREEDY, adapters=AdapterRef("0" * 64, str(tmp_path / "nowhere")))
