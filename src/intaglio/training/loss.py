"""Cross entropy at the positions that have to be answered, and at no others.

The output layer of a Gemma is 262,144 tokens wide: over a whole batch it would be most of the work and of the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from intaglio.training.batches import IGNORED, pad
from intaglio.training.encode import Tokens

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Answers:
    """The answer positions of a batch, row after row.

    hidden   [answer tokens, hidden] the state that has to bring forth the token
    wanted   [answer tokens] int64, that token
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
    """The output layer, whole or cut down to a shortlist of tokens.

    A shortlist holds all tokens of the data and, as their rivals, the commonest ones, which have the lowest ids in
    Gemma's vocabulary. The layer is frozen: training changes only the state before it. What the shortlist leaves out
    is never pushed down, so a model could still say it; held-out examples are judged over the whole vocabulary.
    """

    def __init__(self, model: Any, shortlist: int = 0, examples: Iterable[Tokens] = ()) -> None:
        """shortlist: how many of the commonest tokens; 0 takes the whole layer."""
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

    def loss(self, answers: Answers) -> torch.Tensor:
        """Mean cross entropy over the answer tokens."""
        import torch

        wanted = answers.wanted if self._column_of is None else self._column_of[answers.wanted]
        return torch.nn.functional.cross_entropy(self.logits(answers.hidden), wanted)
