from __future__ import annotations

import threading
from pathlib import Path

import pytest

from intaglio import LLM, FinishReason, SamplingParams
from intaglio.errors import ContextLengthError, EngineError
from tests.helpers.adapters import write_peft_adapter
from tests.llm.conftest import GREEDY

LONG = SamplingParams(temperature=0, max_tokens=200, ignore_stop_tokens=True)


def test_the_pieces_of_a_stream_are_the_completion(llm: LLM) -> None:
    deltas = list(llm.stream("one", GREEDY))
    whole = llm.generate("one", GREEDY)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert [delta.finish_reason for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
    assert len(deltas) > 2
    last = deltas[-1]
    assert (last.finish_reason, last.usage and last.usage.completion_tokens) == (FinishReason.LENGTH, 12)


def test_a_chat_is_streamed_too(llm: LLM) -> None:
    chat = [{"role": "user", "content": "one"}]
    assert "".join(delta.text for delta in llm.stream(chat, GREEDY)) == llm.chat(chat, GREEDY).text


def test_nothing_is_streamed_where_no_token_was_asked_for(llm: LLM) -> None:
    (only,) = llm.stream("one", SamplingParams(max_tokens=0))
    assert (only.text, only.finish_reason) == ("", FinishReason.LENGTH)


def test_a_wrong_request_is_refused_before_the_first_piece(llm: LLM) -> None:
    with pytest.raises(ContextLengthError):
        llm.stream("one", SamplingParams(max_tokens=100_000))


def test_a_stream_that_is_left_early_ends_its_request(llm: LLM) -> None:
    for delta in llm.stream("one", LONG):
        assert delta.finish_reason is None
        break
    assert not llm._served.engine.has_work, "the generator was closed with the loop"  # type: ignore[union-attr]


def test_a_stream_that_was_never_begun_has_no_request(llm: LLM) -> None:
    stream = llm.stream("one", LONG)
    assert not llm._served.engine.has_work  # type: ignore[union-attr]
    del stream


def test_two_streams_and_a_batch_can_take_turns(llm: LLM, tmp_path: Path) -> None:
    adapter = write_peft_adapter(tmp_path / "a", llm.config, seed=9)
    one, two = llm.stream("one", GREEDY), llm.stream("one", GREEDY, adapters=adapter)
    begun = next(one).text, next(two).text
    whole = llm.generate("two", GREEDY).text
    rest = "".join(delta.text for delta in one), "".join(delta.text for delta in two)
    texts = [begin + end for begin, end in zip(begun, rest, strict=True)]
    assert texts == [llm.generate("one", GREEDY).text, llm.generate("one", GREEDY, adapters=adapter).text]
    assert whole == llm.generate("two", GREEDY).text


def test_threads_share_one_llm_and_each_gets_its_own_text(llm: LLM) -> None:
    prompts = ["one", "two", "three", "the answer"]
    expected = [llm.generate(prompt, LONG).text for prompt in prompts]
    found: dict[str, list[str]] = {prompt: [] for prompt in prompts}

    def ask(prompt: str) -> None:
        for _ in range(3):
            found[prompt].append(llm.generate(prompt, LONG).text)
            found[prompt].append("".join(delta.text for delta in llm.stream(prompt, LONG)))

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [[text] * 6 for text in expected]


def test_a_call_that_is_interrupted_leaves_nothing_running(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    step = llm._served.engine.step  # type: ignore[union-attr]
    steps = []

    def interrupted() -> object:
        if len(steps) == 3:
            raise KeyboardInterrupt
        steps.append(1)
        return step()

    monkeypatch.setattr(llm._served.engine, "step", interrupted)  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["one", "two"], LONG)
    monkeypatch.undo()
    assert not llm._served.engine.has_work  # type: ignore[union-attr]
    assert llm.generate("one", GREEDY).text


def test_a_closed_llm_says_so(base_folder: Path) -> None:
    with LLM(base_folder, cache_dir=base_folder / "cache", kv_cache_bytes=1 << 22) as llm:
        stream = llm.stream("one", LONG)
        next(stream)
    for call in (lambda: llm.generate("one", GREEDY), lambda: list(stream), lambda: llm.load_adapter("intaglio-json")):
        with pytest.raises(EngineError, match="this LLM is closed"):
            call()
    llm.close()


def test_two_models_in_one_process_do_not_disturb_each_other(llm: LLM, base_folder: Path) -> None:
    other = LLM(base_folder, cache_dir=base_folder / "cache", kv_cache_bytes=1 << 22)
    streams = llm.stream("one", GREEDY), other.stream("one", GREEDY)
    texts = ["".join(delta.text for delta in pair) for pair in zip(*streams, strict=True)]
    assert all(text[: len(text) // 2] == text[len(text) // 2 :] for text in texts)
