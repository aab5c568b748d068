"""Who runs in the next step, and with how many tokens: continuous batching with chunked prefill.

Each step has a budget of tokens. Running sequences that decode take one each; what is left goes to prompts, in order of
arrival, cut into pieces as needed; then waiting sequences are admitted while there is room, except that one whose
adapter is still being read lets others go first. When the cache runs out, the sequence that arrived last gives its
blocks back and waits at the front of the queue; it will compute its tokens again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from intaglio.engine.kv_cache import KVCacheManager
from intaglio.engine.sequence import Sequence, SequenceState
from intaglio.lora.pool import Place
from intaglio.request import FinishReason


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One sequence's part of a step: its next `num_tokens` pending tokens."""

    sequence: Sequence
    num_tokens: int

    @property
    def completes(self) -> bool:
        """Whether all its tokens are computed after this step, so that a next one can be chosen."""
        return self.num_tokens == self.sequence.num_pending


class Scheduler:
    """The queue of waiting and the list of running sequences, both in order of arrival.

    may_run  takes a place in memory for the sequence's adapter, if there is one; called at admission
    left     is told when a sequence leaves the running list (finished, aborted or preempted)
    """

    def __init__(
        self,
        cache: KVCacheManager,
        *,
        max_running: int,
        step_tokens: int,
        may_run: Callable[[Sequence], Place] = lambda _: Place.TAKEN,
        left: Callable[[Sequence], None] = lambda _: None,
    ) -> None:
        self.cache = cache
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self._max_running = max_running
        self._step_tokens = step_tokens
        self._may_run = may_run
        self._left = left

    @property
    def has_work(self) -> bool:
        return bool(self.waiting or self.running)

    def next_to_run(self, more: int) -> list[Sequence]:
        """The waiting sequences that would fill the running list, and some more that may soon."""
        return list(islice(self.waiting, self._max_running - len(self.running) + more))

    def add(self, sequence: Sequence) -> None:
        self.waiting.append(sequence)

    def schedule(self) -> list[Scheduled]:
        """The next step. Empty only if nothing waits or runs, or nothing that waits can have its adapter yet."""
        budget = self._step_tokens
        scheduled: list[Scheduled] = []
        preempted_before = self.num_preemptions
        decoding_first = sorted(self.running, key=lambda sequence: sequence.num_pending > 1)  # stable: arrival order
        for sequence in decoding_first:
            if sequence.state is not SequenceState.RUNNING or budget == 0:
                continue  # preempted for one that came before it, or out of budget
            num_tokens = min(sequence.num_pending, budget)
            if self._make_room(sequence, num_tokens, scheduled):
                self.cache.grow(sequence, num_tokens)
                scheduled.append(Scheduled(sequence, num_tokens))
                budget -= num_tokens
        if self.num_preemptions == preempted_before:  # do not admit into the room that somebody was just put out of
            self._admit(scheduled, budget)
        return scheduled

    def _make_room(self, sequence: Sequence, num_tokens: int, scheduled: list[Scheduled]) -> bool:
        """Preempt from the youngest on until the tokens fit. False if the sequence itself had to go."""
        while not self.cache.can_grow(sequence, num_tokens):
            in_step = {id(item.sequence) for item in scheduled}
            victim = next(other for other in reversed(self.running) if id(other) not in in_step)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _admit(self, scheduled: list[Scheduled], budget: int) -> None:
        for sequence in list(self.waiting):
            if budget == 0 or len(self.running) == self._max_running:
                return
            num_cached = self.cache.find_prefix(sequence)
            if not self.cache.can_admit(sequence, num_cached):
                return
            place = self._may_run(sequence)
            if place is Place.NONE:
                return  # those behind it wait too, lest it never finds room
            if place is Place.COMING:
                continue
            self.waiting.remove(sequence)
            self.cache.admit(sequence, num_cached)
            if not sequence.was_admitted:
                sequence.num_cached = num_cached
                sequence.was_admitted = True
            sequence.state = SequenceState.RUNNING
            self.running.append(sequence)
            num_tokens = min(sequence.num_pending, budget)
            if not self.cache.can_grow(sequence, num_tokens):
                return  # its cached prefix was the last room; it stays and grows in a later step
            self.cache.grow(sequence, num_tokens)
            scheduled.append(Scheduled(sequence, num_tokens))
            budget -= num_tokens

    def _preempt(self, sequence: Sequence) -> None:
        self.num_preemptions += 1
        self._leave(sequence)
        sequence.state = SequenceState.WAITING
        self.waiting.appendleft(sequence)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """The sequence ends, wherever it stands; its blocks are free at once."""
        if sequence.state is SequenceState.RUNNING:
            self._leave(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.state = SequenceState.FINISHED
        sequence.finish_reason = reason

    def _leave(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self.cache.free(sequence)
        self._left(sequence)

    def check(self) -> None:
        """Raise AssertionError unless states, lists and cache agree."""
        assert all(sequence.state is SequenceState.RUNNING for sequence in self.running)
        assert all(sequence.state is SequenceState.WAITING for sequence in self.waiting)
        assert all(not table.blocks for sequence in self.waiting for table in sequence.tables)
        assert len(self.running) <= self._max_running
        self.cache.check([*self.running, *self.waiting])
