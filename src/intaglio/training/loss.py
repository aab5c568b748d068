"""Cross entropy at the positions whose next token belongs to an answer.

The output layer of a Gemma is 262,144 tokens wide: over a whole batch it would be most of the work and of the memory.
So positions without an answer are left out, and the others go through it a few at a time: the logits of 8 texts of
1,024 tokens would take 8.6 GB, and their gradient as much again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intaglio.training.batches import IGNORED, pad
from intaglio.training.encode import Tokens

if TYPE_CHECKING:
    import torch

POSITIONS = 64  # go through the output layer at a time: with 262,144 tokens their logits take 64 MiB


@dataclass(frozen=True, slots=True)
class Answers:
    """The answer positions of a batch, row after row.

    hidden   [answer tokens, hidden] the hidden state from which the token is predicted
    wanted   [answer tokens] int64, the token to predict
    """

    hidden: torch.Tensor
    wanted: torch.Tensor


def answer_states(model: Any, examples: Sequence[Tokens]) -> Answers:
    """Run a causal language model of transformers over a batch."""
    import torch

    batch = pad(examples)
    ids, labels = torch.tensor(batch.ids), torch.tensor(batch.labels)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state  # [rows, width, hidden]
    is_answer = labels != IGNORED
    return Answers(hidden[is_answer], labels[is_answer])


class Head:
    """The output layer, complete or reduced to a shortlist of tokens.

    A shortlist has all tokens of the data and, as negative examples, the commonest ones, which have the lowest ids in
    Gemma's vocabulary. The layer is frozen: training changes only its input. Tokens outside the shortlist never become
    less likely, so the model could still generate them; held-out examples are evaluated over the whole vocabulary.
    """

    def __init__(self, model: Any, shortlist: int = 0, examples: Iterable[Tokens] = ()) -> None:
        """shortlist: how many of the commonest tokens; 0 uses the whole layer."""
        import torch

        self._rows = model.lm_head.weight.detach()  # [vocabulary or shortlist, hidden]
        self._softcap = getattr(model.config, "final_logit_softcapping", None)
        self._column_of: torch.Tensor | None = None
        if 0 < shortlist < len(self._rows):
            in_data = {token_id for tokens in examples for token_id in tokens.ids}
            chosen = torch.tensor(sorted(in_data | set(range(shortlist))))
            self._column_of = torch.full((len(self._rows),), IGNORED)
            self._column_of[chosen] = torch.arange(len(chosen))
            self._rows = self._rows[chosen]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[tokens, columns] float32 for hidden states [tokens, hidden]."""
        import torch

        logits = (hidden @ self._rows.T).float()
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def backward(self, answers: Answers) -> float:
        """The mean cross entropy over the answer tokens; its gradient is added to every weight that requires one.

        The layer is frozen, so only the gradient of the hidden states is needed. It is collected a few positions at a
        time, and propagated through the model once.
        """
        import torch

        wanted = answers.wanted if self._column_of is None else self._column_of[answers.wanted]
        hidden = answers.hidden.detach().requires_grad_()
        total = 0.0
        for states, targets in zip(hidden.split(POSITIONS), wanted.split(POSITIONS), strict=True):
            loss = torch.nn.functional.cross_entropy(self.logits(states), targets, reduction="sum") / len(wanted)
            loss.backward()
            total += float(loss.detach())
        answers.hidden.backward(hidden.grad)
        return total
