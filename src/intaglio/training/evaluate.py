"""Evaluates a model on examples that it was not trained on.

An answer is generated token for token at temperature 0 exactly when each of its tokens is the likeliest of the whole
vocabulary after the prompt and the answer's tokens before it. So one forward per batch suffices.
Answers with the same text in other tokens, or correct in other words, do not count: the result is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from intaglio.training.encode import Tokens
from intaglio.training.loss import POSITIONS, Answers, Head, answer_states
from intaglio.training.report import Evaluation

if TYPE_CHECKING:
    import torch


class _TokenScores(NamedTuple):
    """Per answer token: its cross entropy [tokens] float32, and whether it is the likeliest [tokens] bool."""

    losses: torch.Tensor
    is_likeliest: torch.Tensor


def evaluate(model: Any, examples: Sequence[Tokens], batch_size: int) -> Evaluation:
    """Evaluate a causal language model of transformers on at least one example."""
    import torch

    head = Head(model)
    order = sorted(examples, key=lambda tokens: len(tokens.ids))
    total, num_tokens, num_exact = 0.0, 0, 0
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            scores = _score_tokens(head, answer_states(model, batch))
            total += float(scores.losses.double().sum())
            num_tokens += len(scores.losses)
            rows = scores.is_likeliest.split([tokens.num_answer for tokens in batch])
            num_exact += sum(bool(row.all()) for row, tokens in zip(rows, batch, strict=True) if tokens.is_chat)
    num_chats = sum(tokens.is_chat for tokens in examples)
    loss = total / num_tokens
    exact = num_exact / num_chats if num_chats else None
    return Evaluation(loss, math.exp(min(loss, 700.0)), exact, len(examples))


def _score_tokens(head: Head, answers: Answers) -> _TokenScores:
    import torch

    losses, is_likeliest = [], []
    for hidden, wanted in zip(answers.hidden.split(POSITIONS), answers.wanted.split(POSITIONS), strict=True):
        logits = head.logits(hidden)
        losses.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
        is_likeliest.append(logits.argmax(dim=-1) == wanted)
    return _TokenScores(torch.cat(losses), torch.cat(is_likeliest))
