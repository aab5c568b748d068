"""Which sequences run in the next step, with how many tokens: continuous batching with chunked prefill, in two classes.

Each step has a budget of tokens, of which a row of a prompt that is scored takes more than one, because its logits are
computed too. Interactive sequences come first: those that decode take one each, what is left goes
to prompts, in order of arrival, cut into pieces as needed (chunked prefill); then waiting ones are admitted while there
is capacity. One whose adapter or grammar is still loading is skipped meanwhile. What remains of the budget goes to
batch sequences in the same way.

Sequences of one group have the same prompt. One of them computes it while the others wait; then they share its blocks
and compute the last token of the prompt, from which each samples its own completion.

When the KV cache runs out, the sequence that was admitted last is preempted: it gives its blocks back, waits at the
front of its class and computes its tokens again later. Batch sequences are preempted first, also for interactive ones
that only wait to be admitted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from intaglio.engine.kv_cache import BlockCopy, KVCacheManager
from intaglio.engine.sequence import Sequence, SequenceState
from intaglio.lora.pool import AcquireResult
from intaglio.request import FinishReason, Priority


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One sequence's part of a step: its next `num_tokens` pending tokens."""

    sequence: Sequence
    num_tokens: int

    @property
    def completes(self) -> bool:
        """Whether all its tokens are computed after this step, so that a next one is sampled."""
        return self.num_tokens == self.sequence.num_pending

    @property
    def completes_prompt(self) -> bool:
        """Whether the last token of its prompt is computed in this step."""
        sequence = self.sequence
        return sequence.num_computed < sequence.num_prompt <= sequence.num_computed + self.num_tokens

    @property
    def num_prompt_tokens(self) -> int:
        """How many of its tokens in this step are of the prompt."""
        left = self.sequence.num_prompt - self.sequence.num_computed
        return max(0, min(self.num_tokens, left))

    @property
    def samples(self) -> bool:
        """Whether a token is sampled after this step. Not for a prompt that is only scored."""
        return self.completes and self.sequence.max_tokens > 0


@dataclass(slots=True)
class _Step:
    """A step being planned: its remaining budget in rows without logits, what is scheduled, what was preempted."""

    budget: float
    scheduled: list[Scheduled] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)


class Scheduler:
    """The queue of waiting sequences, by class and then by arrival, and the list of running ones, by admission.

    acquire  called at admission for what a sequence needs besides blocks: its grammar's matcher, its adapters in memory
    release  gives that back: the sequence was finished, aborted or preempted, or cannot be admitted
    scored_row_cost  what a row whose logits are computed costs, in rows without
    """

    def __init__(
        self,
        cache: KVCacheManager,
        *,
        max_running: int,
        step_tokens: int,
        acquire: Callable[[Sequence], AcquireResult] = lambda _: AcquireResult.ACQUIRED,
        release: Callable[[Sequence], None] = lambda _: None,
        scored_row_cost: float = 1.0,
    ) -> None:
        self.cache = cache
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.num_cached_tokens = 0  # of prompts, taken from the prefix cache
        self._max_running = max_running
        self._step_tokens = step_tokens
        self._acquire = acquire
        self._release = release
        self._scored_row_cost = scored_row_cost

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def next_to_admit(self, more: int) -> list[Sequence]:
        """The waiting sequences that could be admitted now, and `more` behind them."""
        staying = sum(sequence.priority is Priority.INTERACTIVE for sequence in self.running)
        if not self.waiting or self.waiting[0].priority is Priority.BATCH:
            staying = len(self.running)  # none is preempted for a batch sequence
        return self.waiting[: self._max_running - staying + more]

    def add(self, sequence: Sequence) -> None:
        self.waiting.insert(bisect_right(self.waiting, sequence.priority, key=_priority_of), sequence)

    def schedule(self) -> list[Scheduled]:
        """The next step. Empty only if nothing waits or runs, or what every waiting sequence needs is still loading."""
        step = _Step(self._step_tokens)
        for priority in Priority:
            self._schedule_running(priority, step)
            if not self._admit(priority, step):
                break
        return step.scheduled

    def _schedule_running(self, priority: Priority, step: _Step) -> None:
        """Give the running sequences of a class their next tokens."""
        of_class = [sequence for sequence in self.running if sequence.priority is priority]
        for sequence in sorted(of_class, key=lambda sequence: sequence.num_pending > 1):  # decoding first; stable
            if sequence.state is not SequenceState.RUNNING or step.budget < 1:
                continue  # preempted for one that came before it, or out of budget
            num_tokens = self._num_affordable(sequence, step)
            if self._preempt_until_it_fits(sequence, num_tokens, step):
                self._add_to_step(sequence, num_tokens, step)

    def _preempt_until_it_fits(self, sequence: Sequence, num_tokens: int, step: _Step) -> bool:
        """Free blocks for the sequence's next tokens. False if the sequence itself was preempted."""
        while not self.cache.can_grow(sequence, num_tokens):
            victim = self._last_admitted(Priority.BATCH, step) or self._last_admitted(Priority.INTERACTIVE, step)
            assert victim is not None, "the sequence itself is not in the step yet"
            self._preempt(victim, step)
            if victim is sequence:
                return False
        return True

    def _add_to_step(self, sequence: Sequence, num_tokens: int, step: _Step) -> None:
        """Schedule the sequence's next tokens, and allocate their blocks."""
        self.cache.grow(sequence, num_tokens)
        step.scheduled.append(Scheduled(sequence, num_tokens))
        step.budget -= num_tokens + (self._scored_row_cost - 1) * len(sequence.scored_positions(num_tokens))

    def _num_affordable(self, sequence: Sequence, step: _Step) -> int:
        """As many of the sequence's pending tokens as the budget allows, which is 1 at least; one at least."""
        budget = int(step.budget)
        scored = sequence.scored_positions(sequence.num_pending)
        plain = min(sequence.num_pending, scored.start - sequence.num_computed if scored else budget, budget)
        num_scored = min(len(scored), int((step.budget - plain) / self._scored_row_cost))
        if num_scored < len(scored):
            return max(1, plain + num_scored)
        left = int(step.budget - plain - num_scored * self._scored_row_cost)
        return min(sequence.num_pending, plain + num_scored + left)

    def _admit(self, priority: Priority, step: _Step) -> bool:
        """Admit waiting sequences of a class. False if there is no capacity for one: the sequences behind it wait too,
        because they would take the capacity that it needs.
        """
        for sequence in [sequence for sequence in self.waiting if sequence.priority is priority]:
            if step.budget < 1 or sequence in step.preempted:
                return False  # capacity that was just freed by preemption is not for the waiting
            if self._waits_for_its_prompt(sequence):
                continue
            result = self._acquire_all(sequence, step)
            if result is AcquireResult.NO_CAPACITY:
                return False
            if result is AcquireResult.LOADING:
                continue
            num_cached = self.cache.find_prefix(sequence)
            self.cache.admit(sequence, num_cached)
            self._start_running(sequence)
            num_tokens = self._num_affordable(sequence, step)
            if not self.cache.can_grow(sequence, num_tokens):
                return False  # its cached prefix holds the last free blocks; it runs and grows in a later step
            self._add_to_step(sequence, num_tokens, step)
        return True

    def _acquire_all(self, sequence: Sequence, step: _Step) -> AcquireResult:
        """Acquire what the sequence needs to run, a row and blocks for it included. For an interactive sequence, batch
        sequences are preempted, the last admitted first, but not while its adapter or grammar is loading.
        """
        may_preempt = sequence.priority is Priority.INTERACTIVE
        if not self._has_capacity(sequence) and not (may_preempt and self._last_admitted(Priority.BATCH, step)):
            return AcquireResult.NO_CAPACITY
        result = self._acquire(sequence)
        while result is AcquireResult.NO_CAPACITY or (
            result is AcquireResult.ACQUIRED and not self._has_capacity(sequence)
        ):
            victim = self._last_admitted(Priority.BATCH, step) if may_preempt else None
            if victim is None:
                if result is AcquireResult.ACQUIRED:
                    self._release(sequence)
                return AcquireResult.NO_CAPACITY
            self._preempt(victim, step)
            if result is AcquireResult.NO_CAPACITY:
                result = self._acquire(sequence)
        return result

    def _has_capacity(self, sequence: Sequence) -> bool:
        if len(self.running) == self._max_running:
            return False
        return self.cache.can_admit(sequence, self.cache.find_prefix(sequence))

    def _start_running(self, sequence: Sequence) -> None:
        """Its blocks are allocated: it has what it needs to run."""
        self.waiting.remove(sequence)
        if not sequence.was_admitted:
            sequence.num_cached = sequence.num_computed
            self.num_cached_tokens += sequence.num_cached
            sequence.was_admitted = True
        sequence.state = SequenceState.RUNNING
        self.running.append(sequence)

    def _waits_for_its_prompt(self, sequence: Sequence) -> bool:
        """Whether a running sequence is computing the prompt that it has too."""
        if sequence.group is None:
            return False
        return any(one.group == sequence.group and one.num_computed < one.num_prompt for one in self.running)

    def fork_prompts(self, scheduled: list[Scheduled]) -> list[BlockCopy]:
        """Admit the sequences that waited for the prompts which this step has computed: they share them.

        Call it after the forward and before its tokens are committed. Returns what has to be copied at once.
        """
        done = [item.sequence for item in scheduled if item.completes_prompt and item.sequence.group is not None]
        return [copy for source in done for copy in self._fork_prompt(source)]

    def _fork_prompt(self, source: Sequence) -> list[BlockCopy]:
        copies: list[BlockCopy] = []
        for sequence in [one for one in self.waiting if one.priority is source.priority]:
            if sequence.group != source.group:
                if sequence.was_admitted:
                    break  # it was preempted: what is free is for it first
                continue
            num_shared = min(source.num_prompt, len(sequence.tokens) - 1)
            if len(self.running) == self._max_running or not self.cache.can_fork(sequence, num_shared):
                break
            if not sequence.can_share_scores(source) or self._acquire(sequence) is not AcquireResult.ACQUIRED:
                continue  # it is admitted in a later step, like any other
            sequence.scores = source.scores if sequence.scores is not None else None
            copies += self.cache.fork(sequence, source, num_shared)
            self._start_running(sequence)
        return copies

    def _last_admitted(self, priority: Priority, step: _Step) -> Sequence | None:
        """The running sequence of a class that was admitted last, of those that have no tokens in this step yet."""
        in_step = {id(item.sequence) for item in step.scheduled}
        of_class = (one for one in reversed(self.running) if one.priority is priority and id(one) not in in_step)
        return next(of_class, None)

    def _preempt(self, sequence: Sequence, step: _Step) -> None:
        self.num_preemptions += 1
        self._stop_running(sequence)
        sequence.state = SequenceState.WAITING
        step.preempted.append(sequence)
        self.waiting.insert(bisect_left(self.waiting, sequence.priority, key=_priority_of), sequence)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """End a waiting or running sequence; its blocks are free at once."""
        if sequence.state is SequenceState.RUNNING:
            self._stop_running(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.state = SequenceState.FINISHED
        sequence.finish_reason = reason

    def _stop_running(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.cache.free(sequence)
        self._release(sequence)

    def check(self) -> None:
        """Raise AssertionError unless states, lists and cache agree."""
        assert all(sequence.state is SequenceState.RUNNING for sequence in self.running)
        assert all(sequence.state is SequenceState.WAITING for sequence in self.waiting)
        assert all(not table.blocks for sequence in self.waiting for table in sequence.tables)
        assert len(self.running) <= self._max_running
        classes = [sequence.priority for sequence in self.waiting]
        assert classes == sorted(classes), "a batch sequence waits before an interactive one"
        self.cache.check([*self.running, *self.waiting])


def _priority_of(sequence: Sequence) -> Priority:
    return sequence.priority
