"""The loss is that of transformers over the answers, and `exact` counts answers that the model would generate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.training.base import load_base
from intaglio.training.encode import Tokens
from intaglio.training.evaluate import evaluate
from intaglio.training.loss import Head, answer_states
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_hf_folder
from tests.oracle.transformers_peft import hf_logits

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore")]

# A chat with two answers, longer than the tiny models' window of 8, a short one, and a text of which all tokens but the
# first have loss.
EXAMPLES = [
    Tokens([2, 7, 5, 200, 33, 41, 9, 77, 120, 5, 6], ((2, 4), (8, 11)), is_chat=True),
    Tokens([2, 14, 3, 9], ((3, 4),), is_chat=True),
    Tokens([2, 90, 91, 92, 3, 4, 5, 6, 7, 8, 9, 10, 11], ((1, 13),), is_chat=False),
]


def load(tmp_path: Path, family: Family) -> Any:
    config = tiny_config(family)
    return load_base(write_hf_folder(tmp_path / "m", config, random_weights(config)), "float32")


def transformers_loss(model: Any, examples: list[Tokens]) -> float:
    """Mean over all answer tokens, one example at a time: no padding."""
    import torch

    total = 0.0
    for tokens in examples:
        labels = [-100] * len(tokens.ids)
        for start, stop in tokens.answers:
            labels[start:stop] = tokens.ids[start:stop]
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([tokens.ids]), labels=torch.tensor([labels])).loss
        total += float(loss) * tokens.num_answer
    return total / sum(tokens.num_answer for tokens in examples)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers_over_the_answer_tokens_alone(tmp_path: Path, family: Family) -> None:
    model = load(tmp_path, family)
    wanted = transformers_loss(model, EXAMPLES)
    evaluation = evaluate(model, EXAMPLES, batch_size=2)
    assert evaluation.loss == pytest.approx(wanted, rel=1e-4)
    assert evaluation.perplexity == pytest.approx(np.exp(wanted), rel=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_and_its_gradient_are_those_of_all_positions_at_once(
    tmp_path: Path, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr("intaglio.training.loss.POSITIONS", 4)  # of 18: four parts and a smaller one
    model = load(tmp_path, family)
    norm = model.model.norm.weight.requires_grad_()
    states = answer_states(model, EXAMPLES)
    assert len(states.wanted) == 18
    head = Head(model)
    whole = torch.nn.functional.cross_entropy(head.logits(states.hidden), states.wanted)
    (wanted,) = torch.autograd.grad(whole, norm)
    assert head.backward(answer_states(model, EXAMPLES)) == pytest.approx(transformers_loss(model, EXAMPLES), rel=1e-4)
    torch.testing.assert_close(norm.grad, wanted, rtol=1e-4, atol=1e-6)


def test_exact_counts_the_chats_whose_answers_the_model_would_all_generate(tmp_path: Path) -> None:
    model = load(tmp_path, "gemma3_text")

    def answered(prompt: list[int], wrong_at: int | None = None) -> Tokens:
        """The prompt and the model's next four tokens at temperature 0, the one at `wrong_at` changed."""
        ids = list(prompt)
        for index in range(4):
            likeliest = int(hf_logits(model, np.array(ids, np.int32))[-1].argmax())
            ids.append(likeliest if index != wrong_at else (likeliest + 1) % 100)
        return Tokens(ids, ((len(prompt), len(ids)),), is_chat=True)

    right, wrong = answered([2, 7, 5, 9, 12, 6]), [answered([2, 7, 5], wrong_at=index) for index in (0, 3)]
    assert evaluate(model, [right, *wrong, EXAMPLES[2]], batch_size=3).exact == 1 / 3
