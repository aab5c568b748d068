"""Who runs in the next step, and with how many tokens: continuous batching with chunked prefill, in two classes.

Each step has a budget of tokens. Interactive sequences come first: those that decode take one each, what is left goes
to prompts, in order of arrival, cut into pieces as needed; then waiting ones are admitted while there is room, except
that one whose adapter or grammar is still being prepared lets others go first. What remains of the budget goes to
batch sequences in the same way.

When the cache runs out, the sequence that arrived last gives its blocks back and waits at the front of its class; it
will compute its tokens again. Batch sequences give way first, also to interactive ones that only wait for a place.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from intaglio.engine.kv_cache import KVCacheManager
from intaglio.engine.sequence import Sequence, SequenceState
from intaglio.lora.pool import Place
from intaglio.request import FinishReason, Priority


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One sequence's part of a step: its next `num_tokens` pending tokens."""

    sequence: Sequence
    num_tokens: int

    @property
    def completes(self) -> bool:
        """Whether all its tokens are computed after this step, so that a next one can be chosen."""
        return self.num_tokens == self.sequence.num_pending


@dataclass(slots=True)
class _Step:
    """A step in the making: tokens left to give, who has got some, who had to give way."""

    budget: int
    scheduled: list[Scheduled] = field(default_factory=list)
    put_out: list[Sequence] = field(default_factory=list)


class Scheduler:
    """The queue of waiting sequences, by class and then by arrival, and the list of running ones, by admission.

    may_run  takes what the sequence needs beside blocks, such as its adapter's place in memory; called at admission
    left     takes that back: the sequence was finished, aborted or preempted, or found no room after all
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
        self.waiting: list[Sequence] = []
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
        staying = sum(sequence.priority is Priority.INTERACTIVE for sequence in self.running)
        if not self.waiting or self.waiting[0].priority is Priority.BATCH:
            staying = len(self.running)  # nobody gives way
        return self.waiting[: self._max_running - staying + more]

    def add(self, sequence: Sequence) -> None:
        self.waiting.insert(bisect_right(self.waiting, sequence.priority, key=_class), sequence)

    def schedule(self) -> list[Scheduled]:
        """The next step. Empty only if nothing waits or runs, or nothing that waits can have what it needs yet."""
        step = _Step(self._step_tokens)
        for priority in Priority:
            self._advance(priority, step)
            if not self._admit(priority, step):
                break
        return step.scheduled

    def _advance(self, priority: Priority, step: _Step) -> None:
        """Give the running sequences of a class their next tokens."""
        mine = [sequence for sequence in self.running if sequence.priority is priority]
        for sequence in sorted(mine, key=lambda sequence: sequence.num_pending > 1):  # decoding first; stable
            if sequence.state is not SequenceState.RUNNING or step.budget == 0:
                continue  # preempted for one that came before it, or out of budget
            if self._make_room(sequence, min(sequence.num_pending, step.budget), step):
                self._grow(sequence, step)

    def _make_room(self, sequence: Sequence, num_tokens: int, step: _Step) -> bool:
        """Preempt until the tokens fit. False if the sequence itself had to go."""
        while not self.cache.can_grow(sequence, num_tokens):
            victim = self._youngest(Priority.BATCH, step) or self._youngest(Priority.INTERACTIVE, step)
            assert victim is not None, "the sequence itself is not in the step yet"
            self._preempt(victim, step)
            if victim is sequence:
                return False
        return True

    def _grow(self, sequence: Sequence, step: _Step) -> None:
        num_tokens = min(sequence.num_pending, step.budget)
        self.cache.grow(sequence, num_tokens)
        step.scheduled.append(Scheduled(sequence, num_tokens))
        step.budget -= num_tokens

    def _admit(self, priority: Priority, step: _Step) -> bool:
        """Let waiting sequences of a class run. False if one found no room: those behind it wait too, lest it never
        finds any.
        """
        for sequence in [sequence for sequence in self.waiting if sequence.priority is priority]:
            if step.budget == 0 or sequence in step.put_out:
                return False  # nobody is admitted into the room that somebody was just put out of
            place = self._take_place(sequence, step)
            if place is Place.NONE:
                return False
            if place is Place.COMING:
                continue
            num_cached = self.cache.find_prefix(sequence)
            self.waiting.remove(sequence)
            self.cache.admit(sequence, num_cached)
            if not sequence.was_admitted:
                sequence.num_cached = num_cached
                sequence.was_admitted = True
            sequence.state = SequenceState.RUNNING
            self.running.append(sequence)
            if not self.cache.can_grow(sequence, min(sequence.num_pending, step.budget)):
                return False  # its cached prefix was the last room; it stays and grows in a later step
            self._grow(sequence, step)
        return True

    def _take_place(self, sequence: Sequence, step: _Step) -> Place:
        """Take all that the sequence needs to run. For an interactive one batch sequences give way, youngest first,
        but not while its adapter or grammar is still being prepared.
        """
        can_clear = sequence.priority is Priority.INTERACTIVE
        if not self._has_room(sequence) and not (can_clear and self._youngest(Priority.BATCH, step)):
            return Place.NONE
        place = self._may_run(sequence)
        while place is Place.NONE or (place is Place.TAKEN and not self._has_room(sequence)):
            victim = self._youngest(Priority.BATCH, step) if can_clear else None
            if victim is None:
                if place is Place.TAKEN:
                    self._left(sequence)
                return Place.NONE
            self._preempt(victim, step)
            if place is Place.NONE:
                place = self._may_run(sequence)
        return place

    def _has_room(self, sequence: Sequence) -> bool:
        if len(self.running) == self._max_running:
            return False
        return self.cache.can_admit(sequence, self.cache.find_prefix(sequence))

    def _youngest(self, priority: Priority, step: _Step) -> Sequence | None:
        """The one that was admitted last, of those that have no tokens in this step yet."""
        in_step = {id(item.sequence) for item in step.scheduled}
        mine = (one for one in reversed(self.running) if one.priority is priority and id(one) not in in_step)
        return next(mine, None)

    def _preempt(self, sequence: Sequence, step: _Step) -> None:
        self.num_preemptions += 1
        self._leave(sequence)
        sequence.state = SequenceState.WAITING
        step.put_out.append(sequence)
        self.waiting.insert(bisect_left(self.waiting, sequence.priority, key=_class), sequence)

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
        classes = [sequence.priority for sequence in self.waiting]
        assert classes == sorted(classes), "a batch sequence waits before an interactive one"
        self.cache.check([*self.running, *self.waiting])


def _class(sequence: Sequence) -> Priority:
    return sequence.priority
