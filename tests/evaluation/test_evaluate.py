"""Perplexity and divergences of tiny models, against NumPy computations that share nothing but the forward."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from intaglio.base_model import BaseModel
from intaglio.engine.memory.available import AvailableMemory
from intaglio.errors import AdapterError, EvaluationError, NotEnoughMemoryError
from intaglio.evaluation import evaluate as module
from intaglio.evaluation.evaluate import TokenizedText, Windowing, evaluate
from intaglio.evaluation.loading import Choice, load_subjects, tokenize
from intaglio.evaluation.results import Evaluation
from intaglio.evaluation.texts import Text
from intaglio.model.loader import load_gemma
from intaglio.ops.reference import ReferenceOps
from intaglio.settings import load_settings
from tests.helpers.adapters import write_peft_adapter
from tests.helpers.checkpoints import FAMILIES, random_weights, tiny_config, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json

F64 = NDArray[np.float64]

TEXT = "the quick brown fox jumps over the lazy dog while the user asks the model what the weather will be"
BOS = 2


def choice(folder: Path, family: Any = "gemma3_text", **options: Any) -> Choice:
    config = tiny_config(family, vocab_size=512)
    if not folder.exists():
        write_hf_folder(folder, config, random_weights(config, 4))
        write_tokenizer_json(folder / "tokenizer.json", tiny_pieces(512))
    settings = load_settings(cache_dir=folder.parent / "cache", **options)
    return Choice(BaseModel.open(folder, settings), settings, "tiny")


def run(one: Choice, other: Choice | None = None, length: int = 24, stride: int = 9, text: str = TEXT) -> Evaluation:
    windowing = Windowing(length, stride)
    texts = tokenize([Text("a", text), Text("b", text[:40])], [one] if other is None else [one, other])
    subjects = load_subjects(one, other, windowing)
    return evaluate(texts, subjects.evaluated, subjects.reference, windowing, bos_id=BOS, vocab_size=512)


def window_losses(folder: Path, ids: list[int], length: int, stride: int) -> list[float]:
    """As the guide of transformers does it, one forward per window, every token of a window after BOS."""
    model, found, end = load_gemma(folder, ReferenceOps(), "f32"), [], 0
    for begin in range(0, len(ids), stride):
        stop = min(begin + length, len(ids))
        (logits,) = run_prompts(model, [Prompt([BOS, *ids[begin : stop - 1]])])
        wide = logits.astype(np.float64)
        logs = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
        found += [-logs[position - begin, ids[position]] for position in range(end, stop)]
        end = stop
        if stop == len(ids):
            break
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_is_that_of_the_windows_computed_one_by_one(tmp_path: Path, family: str) -> None:
    one = choice(tmp_path / family, family, format="f32")
    found = run(one)
    ids = one.base.tokenizer.encode(TEXT)
    expected = window_losses(tmp_path / family, ids, 24, 9)
    text = found.texts[0]
    assert (text.num_tokens, text.num_windows) == (len(ids), 1 + math.ceil((len(ids) - 24) / 9))
    assert text.evaluated.loss == pytest.approx(np.mean(expected), rel=1e-5)
    assert text.evaluated.loss_error == pytest.approx(np.std(expected, ddof=1) / math.sqrt(len(ids)), rel=1e-4)
    assert text.evaluated.perplexity == pytest.approx(math.exp(np.mean(expected)), rel=1e-4)
    both = expected + window_losses(tmp_path / family, one.base.tokenizer.encode(TEXT[:40]), 24, 9)
    assert found.total.evaluated.loss == pytest.approx(np.mean(both), rel=1e-5)


def test_figures_do_not_depend_on_the_pieces_of_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = choice(tmp_path / "m", format="w8"), choice(tmp_path / "m", format="w4")
    whole = run(one, other)
    monkeypatch.setattr(module, "LOGIT_BYTES", 3 * 4 * 512)  # three rows
    monkeypatch.setattr(module, "_MAX_PIECE", 5)
    pieces = run(one, other)
    assert pieces.total == whole.total


def test_a_format_is_compared_over_the_whole_vocabulary(tmp_path: Path) -> None:
    one, other = choice(tmp_path / "m", format="w4"), choice(tmp_path / "m", format="f32")
    found = run(one, other, length=64)
    ids = one.base.tokenizer.encode(TEXT)
    logs: list[F64] = []
    for side in (one, other):
        model = load_subjects(side, None, Windowing(64, 9)).evaluated
        logits = model.start_window(64).extend([BOS, *ids[:-1]], len(ids)).astype(np.float64)
        logs.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    kl = (np.exp(logs[1]) * (logs[1] - logs[0])).sum(axis=1)
    compared, reference = found.texts[0].comparison, found.texts[0].reference
    assert compared is not None
    assert reference is not None
    assert compared.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert compared.kl_max == pytest.approx(kl.max(), rel=1e-4)
    assert compared.kl_p99 == pytest.approx(np.quantile(kl, 0.99), rel=1e-4)
    assert compared.same_best == pytest.approx((logs[0].argmax(axis=1) == logs[1].argmax(axis=1)).mean())
    ratio = found.texts[0].evaluated.perplexity / reference.perplexity
    assert compared.perplexity_ratio == pytest.approx(ratio)
    assert (found.evaluated, found.reference) == ("tiny (w4)", "tiny (f32)")


def test_an_adapter_is_compared_with_its_base_and_one_below_rounding_equals_it(tmp_path: Path) -> None:
    base = choice(tmp_path / "m", format="f32")
    effects = []
    for alpha in (1e-12, 8):
        folder = write_peft_adapter(tmp_path / str(alpha), base.base.config, alpha=alpha, seed=9)
        adapted = Choice(base.base, base.settings, "tiny", folder)
        found = run(adapted, base)
        compared = found.total.comparison
        assert compared is not None
        effects.append((compared.kl_max, compared.same_best == 1, compared.perplexity_ratio == 1))
        assert found.evaluated == f"tiny (f32) + {alpha}"
    assert effects[0] == (0.0, True, True)
    assert effects[1][0] > 0.1


def test_an_adapter_of_zeros_is_refused_as_by_a_server(tmp_path: Path) -> None:
    base = choice(tmp_path / "m")
    folder = write_peft_adapter(tmp_path / "zeros", base.base.config, alpha=0)
    with pytest.raises(AdapterError, match="would change nothing"):
        run(Choice(base.base, base.settings, "tiny", folder), base)


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    base = choice(tmp_path / "m")
    wider = replace(base.base.config, hidden_size=64)
    adapter = write_peft_adapter(tmp_path / "a", wider)
    with pytest.raises(AdapterError, match="shape"):
        run(Choice(base.base, base.settings, "tiny", adapter), base)
    with pytest.raises(AdapterError, match="does not exist"):
        run(Choice(base.base, base.settings, "tiny", tmp_path / "nowhere"), base)


def test_a_text_of_one_token_is_refused(tmp_path: Path) -> None:
    one = load_subjects(choice(tmp_path / "m"), None, Windowing(24, 9)).evaluated
    with pytest.raises(EvaluationError, match=r"short has 1 token; at least 2"):
        evaluate([TokenizedText("short", [7])], one, None, Windowing(24, 9), bos_id=BOS, vocab_size=512)


def test_models_with_other_tokens_cannot_be_compared(tmp_path: Path) -> None:
    one, other = choice(tmp_path / "m"), choice(tmp_path / "other")
    write_tokenizer_json(tmp_path / "other" / "tokenizer.json", tiny_pieces(450))
    other = choice(tmp_path / "other")
    with pytest.raises(EvaluationError, match=r"different tokenizers \(512 and 450 tokens\)"):
        run(one, other)


def test_too_little_memory_is_reported_before_anything_is_loaded(tmp_path: Path) -> None:
    one = choice(tmp_path / "m")
    little = AvailableMemory(10**6, "a limit of the test")
    with pytest.raises(NotEnoughMemoryError, match=r"1 MB available \(a limit of the test\): weights"):
        load_subjects(one, None, Windowing(24, 9), little)


def test_progress_counts_every_token_up_to_the_end(tmp_path: Path) -> None:
    one = load_subjects(choice(tmp_path / "m"), None, Windowing(24, 9)).evaluated
    seen: list[tuple[int, int]] = []
    text = TokenizedText("a", list(range(40)))
    windowing = Windowing(24, 9)
    evaluate([text], one, None, windowing, bos_id=BOS, vocab_size=512, progress=lambda *now: seen.append(now))
    assert seen[-1] == (40, 40)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
