from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conversation.conftest import Intaglio


def test_a_prompt_from_the_command_line_or_from_a_pipe_is_completed(connected: Intaglio) -> None:
    assert connected("run", "a b c", "--raw").out == "c b a\n"
    assert connected("run", "--raw", stdin="a b c\n").out == "c b a\n"
    as_chat = connected("run", "a b c", "--system", "x")
    assert as_chat.out.split()[:3] == ["c", "b", "a"]
    assert as_chat.err == ""


def test_the_completion_comes_as_json_too(connected: Intaglio) -> None:
    found = connected("run", "a b c", "--raw", "--max-tokens", "2", "--json").json
    assert found == {
        "model": "@intaglio/fake",
        "adapter": None,
        "text": "c b",
        "finish_reason": "length",
        "prompt_tokens": found["prompt_tokens"],
        "completion_tokens": 2,
    }


def test_a_completion_that_was_cut_says_so_beside_the_text(connected: Intaglio) -> None:
    found = connected("run", "a b c", "--raw", "--max-tokens", "2")
    assert (found.out, found.err) == ("c b\n", "(cut after 2 tokens; --max-tokens allows more)\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", ""], "the prompt is empty"),
        (["run"], "the prompt is empty"),
        (["run", "a", "--raw", "--system", "b"], "--raw and --system were both given"),
        (["run", "a", "--adapter", "nowhere"], "nowhere not found"),
        (["run", "a", "--model", "@intaglio/other"], "does not serve @intaglio/other; it serves @intaglio/fake"),
        (["run", "a", "--json-schema", "nowhere.json"], "--json-schema nowhere.json: No such file"),
        (["run", "a", "--json-schema", "{"], "--json-schema is not JSON"),
        (["run", "a", "--temperature", "9"], "temperature"),
        (["run", "a", "--max-tokens", "-5"], "max_tokens"),
        (["run", "a <fail> b", "--raw"], "engine"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(connected: Intaglio, words: list[str], message: str) -> None:
    found = connected(*words)
    assert found.status == 1
    assert found.err.startswith("intaglio: ")
    assert message in found.err
    assert found.err.count("\n") == 1


def test_bytes_that_are_no_text_are_refused(connected: Intaglio) -> None:
    assert "standard input is not UTF-8" in connected("run", stdin=b"\xff\xfe").err


def test_an_address_without_a_server_is_named_if_it_was_given(intaglio: Intaglio) -> None:
    found = intaglio("run", "a", "--url", "127.0.0.1:1")
    assert found.status == 1
    assert found.err.startswith("intaglio: no response from http://127.0.0.1:1")


def test_a_path_is_run_in_this_process_and_a_schema_is_followed(
    intaglio: Intaglio, base_folder: Path, tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"red": {"type": "boolean"}}, "additionalProperties": False}
    (tmp_path / "schema.json").write_text(json.dumps(schema | {"required": ["red"]}))
    words = ["run", "one", "--model", str(base_folder), "--seed", "1", "--max-tokens", "40"]
    for given in (str(tmp_path / "schema.json"), json.dumps(schema | {"required": ["red"]})):
        found = intaglio(*words, "--json-schema", given, "--json").json
        assert set(json.loads(found["text"])) == {"red"}
        assert found["model"] == str(base_folder)


def test_a_wrong_path_and_a_wrong_adapter_are_refused_in_this_process_too(
    intaglio: Intaglio, base_folder: Path
) -> None:
    assert "nowhere.gguf" in intaglio("run", "a", "--model", "nowhere.gguf").err
    found = intaglio("run", "a", "--model", str(base_folder), "--adapter", "nowhere")
    assert (found.status, "no folder or file, and no demo adapter" in found.err) == (1, True)
