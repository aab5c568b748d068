"""From texts as token ids to perplexities and, with a reference, to how much the two differ."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from intaglio.errors import EvaluationError
from intaglio.evaluation.results import Evaluation, Samples
from intaglio.evaluation.scores import divergence, losses
from intaglio.evaluation.subject import RunningWindow, Subject
from intaglio.evaluation.windows import Window, sliding_windows

DEFAULT_CONTEXT_LENGTH = 2048
LOGIT_BYTES = 128 << 20  # of one piece of logits
_MAX_PIECE = 512  # tokens in one forward

Progress = Callable[[int, int], None]  # tokens scored so far, and in all


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """ids: without BOS."""

    name: str
    ids: list[int]


@dataclass(frozen=True, slots=True)
class Windowing:
    """context_length: tokens of a window, BOS included. stride: tokens from one window's start to the next one's."""

    context_length: int
    stride: int

    @classmethod
    def checked(cls, context_length: int | None, stride: int | None, model_context: int) -> Windowing:
        """The given sizes, or a context of 2,048 tokens at most and half of it as stride.

        model_context  the context length of the model
        Raises EvaluationError for sizes that the model or each other do not allow.
        """
        length = min(DEFAULT_CONTEXT_LENGTH, model_context) if context_length is None else context_length
        if not 2 <= length <= model_context:
            raise EvaluationError(
                f"--context-length is {length}; it must be from 2 to {model_context}, the context length of the model"
            )
        step = max(1, length // 2) if stride is None else stride
        if not 1 <= step <= length:
            raise EvaluationError(f"--stride is {step}; it must be from 1 to the context length, {length}")
        return cls(length, step)


def evaluate(
    texts: Sequence[TokenizedText],
    evaluated: Subject,
    reference: Subject | None,
    windowing: Windowing,
    *,
    bos_id: int,
    vocab_size: int,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score each text by sliding windows (`windows`) and, with a reference, compare the distributions of every token.

    vocab_size  tokens over which distributions are taken: those of the tokenizer
    Raises EvaluationError if a text has fewer than two tokens, or logits are not finite.
    """
    began = time.monotonic()
    for text in texts:
        if len(text.ids) < 2:
            raise EvaluationError(f"{text.name} has {len(text.ids)} token; at least 2 are needed")
    total = sum(len(text.ids) for text in texts)
    subjects = [evaluated] if reference is None else [evaluated, reference]
    scorer = _Scorer(subjects, windowing, bos_id, vocab_size, max(len(text.ids) for text in texts))
    done, found = 0, []
    for text in texts:
        samples = Samples()
        for num_scored in scorer.score(text, samples):
            done += num_scored
            progress(done, total)
        found.append(samples)
    return Evaluation(
        evaluated=evaluated.label,
        reference=None if reference is None else reference.label,
        context_length=windowing.context_length,
        stride=windowing.stride,
        texts=[samples.result(text.name) for text, samples in zip(texts, found, strict=True)],
        total=Samples.joined(found).result("total"),
        seconds=time.monotonic() - began,
    )


class _Scorer:
    """Runs windows through one or two subjects, which see the same tokens in the same pieces."""

    def __init__(
        self, subjects: Sequence[Subject], windowing: Windowing, bos_id: int, vocab_size: int, longest: int
    ) -> None:
        self._subjects = subjects
        self._windowing = windowing
        self._bos_id = bos_id
        self._vocab_size = vocab_size
        self._running = [subject.start_window(min(windowing.context_length, longest)) for subject in subjects]
        rows = max(subject.model.config.vocab_size for subject in subjects)
        self._logit_rows = max(1, min(_MAX_PIECE, LOGIT_BYTES // (4 * rows)))

    def score(self, text: TokenizedText, samples: Samples) -> Iterator[int]:
        """Add the text's tokens to the samples. Yields the number of tokens after each piece."""
        for window in sliding_windows(len(text.ids), self._windowing.context_length, self._windowing.stride):
            samples.num_windows += 1
            inputs = [self._bos_id, *text.ids[window.start : window.stop - 1]]
            for running in self._running:
                running.restart()
            for first, stop, num_scored in self._pieces(window):
                logits = [self._logits(one, inputs[first:stop], max(num_scored, 1)) for one in self._running]
                if num_scored:
                    self._add(samples, text, logits, text.ids[window.start + first : window.start + stop])
                    yield num_scored

    def _pieces(self, window: Window) -> Iterator[tuple[int, int, int]]:
        """(first, stop, number of scored rows) of the window's inputs: context without scores first, in long pieces."""
        scored_from, length = window.first_scored - window.start, window.stop - window.start
        for first in range(0, scored_from, _MAX_PIECE):
            yield first, min(first + _MAX_PIECE, scored_from), 0
        for first in range(scored_from, length, self._logit_rows):
            stop = min(first + self._logit_rows, length)
            yield first, stop, stop - first

    def _logits(self, running: RunningWindow, ids: Sequence[int], num_rows: int) -> NDArray[np.float32]:
        return running.extend(ids, num_rows)[:, : self._vocab_size]

    def _add(
        self, samples: Samples, text: TokenizedText, logits: Sequence[NDArray[np.float32]], targets: Sequence[int]
    ) -> None:
        for subject, rows in zip(self._subjects, logits, strict=True):
            if not np.isfinite(rows).all():
                raise EvaluationError(f"{text.name}: the logits of {subject.label} are not finite")
        samples.losses.append(losses(logits[0], targets))
        if len(logits) > 1:
            samples.reference_losses.append(losses(logits[1], targets))
            found = divergence(logits[1], logits[0])
            samples.kl.append(found.kl)
            samples.same_best.append(found.same_best)
