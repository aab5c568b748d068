from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.engine.kv_cache import KVCacheManager
from intaglio.engine.scheduler import Scheduled, Scheduler
from intaglio.engine.sequence import Sequence
from intaglio.lora.pool import AcquireResult
from intaglio.model.gemma import KVGroupShape
from intaglio.ops import LogprobsRow
from intaglio.request import FinishReason, Priority
from tests.helpers.engines import request

GROUPS = [KVGroupShape(None, (0,)), KVGroupShape(8, (1,))]


def make_scheduler(blocks: int = 40, max_running: int = 4, step_tokens: int = 8) -> Scheduler:
    cache = KVCacheManager(GROUPS, [blocks, blocks], 4)
    return Scheduler(cache, max_running=max_running, step_tokens=step_tokens)


def sequence(
    name: str, length: int, max_tokens: int = 4, priority: Priority = Priority.INTERACTIVE, prefix: int = 0
) -> Sequence:
    """prefix: tokens at the start that it shares with others."""
    offset = sum(name.encode()) * 1000
    tokens = [*range(min(prefix, length)), *range(offset, offset + length - min(prefix, length))]
    return Sequence.from_request(
        request(name, tokens, priority=priority, max_tokens=max_tokens), num_groups=len(GROUPS)
    )


def batch(name: str, length: int, max_tokens: int = 4) -> Sequence:
    return sequence(name, length, max_tokens, Priority.BATCH)


def carry_out(scheduler: Scheduler, scheduled: list[Scheduled]) -> None:
    """What the engine does with a step, with 0 for every sampled token."""
    completed = [item.sequence for item in scheduled if item.completes]
    for item in scheduled:
        scheduler.cache.commit(item.sequence, item.num_tokens)
    for seq in completed:
        seq.tokens.append(0)
        if seq.num_output >= seq.params.max_tokens:
            scheduler.finish(seq, FinishReason.LENGTH)


def names(scheduled: list[Scheduled]) -> list[tuple[str, int]]:
    return [(item.sequence.request_id, item.num_tokens) for item in scheduled]


def test_a_long_prompt_is_cut_to_the_token_budget_and_decodes_go_first() -> None:
    scheduler = make_scheduler(step_tokens=8)
    scheduler.add(sequence("a", 3))
    carry_out(scheduler, first := scheduler.schedule())
    scheduler.add(sequence("b", 20))
    carry_out(scheduler, second := scheduler.schedule())
    carry_out(scheduler, third := scheduler.schedule())
    assert names(first) == [("a", 3)]
    assert names(second) == [("a", 1), ("b", 7)]
    assert names(third) == [("a", 1), ("b", 7)]


def test_no_more_than_max_running_sequences_run() -> None:
    scheduler = make_scheduler(max_running=2, step_tokens=100)
    for name in "abc":
        scheduler.add(sequence(name, 2))
    assert names(scheduler.schedule()) == [("a", 2), ("b", 2)]
    assert [seq.request_id for seq in scheduler.waiting] == ["c"]


def test_a_sequence_whose_adapter_is_loading_is_skipped_and_stays_first_in_the_queue() -> None:
    results = {
        "a": AcquireResult.LOADING,
        "b": AcquireResult.ACQUIRED,
        "c": AcquireResult.LOADING,
        "d": AcquireResult.ACQUIRED,
    }
    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(cache, max_running=3, step_tokens=100, acquire=lambda seq: results[seq.request_id])
    for name in results:
        scheduler.add(sequence(name, 2))
    assert [seq.request_id for seq in scheduler.next_to_admit(0)] == ["a", "b", "c"]
    assert [seq.request_id for seq in scheduler.next_to_admit(1)] == ["a", "b", "c", "d"]
    assert names(scheduler.schedule()) == [("b", 2), ("d", 2)]
    assert [seq.request_id for seq in scheduler.waiting] == ["a", "c"]
    results["a"] = AcquireResult.ACQUIRED
    assert ("a", 2) in names(scheduler.schedule())
    scheduler.check()


def test_a_sequence_whose_adapter_has_no_capacity_holds_back_those_behind_it() -> None:
    results = {"a": AcquireResult.ACQUIRED, "b": AcquireResult.NO_CAPACITY, "c": AcquireResult.ACQUIRED}
    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(cache, max_running=3, step_tokens=100, acquire=lambda seq: results[seq.request_id])
    for name in results:
        scheduler.add(sequence(name, 2))
    assert names(scheduler.schedule()) == [("a", 2)]
    assert [seq.request_id for seq in scheduler.waiting] == ["b", "c"]


def test_the_youngest_is_preempted_when_blocks_run_out_and_is_first_in_the_queue() -> None:
    scheduler = make_scheduler(blocks=6, step_tokens=64)
    old, young, waiting = sequence("old", 11, max_tokens=8), sequence("young", 11, max_tokens=8), sequence("zzz", 3)
    for seq in (old, young, waiting):
        scheduler.add(seq)
    while not scheduler.num_preemptions:
        carry_out(scheduler, scheduler.schedule())
        scheduler.check()
    assert scheduler.running == [old]
    assert list(scheduler.waiting) == [young, waiting]
    assert young.num_computed == 0
    assert young.num_output > 0, "its output tokens are kept"


# -- two classes


def test_waiting_interactive_sequences_go_before_batch_ones_each_class_by_arrival() -> None:
    scheduler = make_scheduler(max_running=3, step_tokens=100)
    for item in (batch("a", 2), sequence("b", 2), batch("c", 2), sequence("d", 2)):
        scheduler.add(item)
    assert [seq.request_id for seq in scheduler.waiting] == ["b", "d", "a", "c"]
    scheduler.check()
    assert names(scheduler.schedule()) == [("b", 2), ("d", 2), ("a", 2)]


def test_an_interactive_prompt_gets_the_budget_before_batch_sequences_that_run() -> None:
    scheduler = make_scheduler(step_tokens=8)
    scheduler.add(batch("b", 20))
    carry_out(scheduler, first := scheduler.schedule())
    scheduler.add(sequence("i", 10))
    carry_out(scheduler, second := scheduler.schedule())
    carry_out(scheduler, third := scheduler.schedule())
    assert names(first) == [("b", 8)]
    assert names(second) == [("i", 8)]
    assert names(third) == [("i", 2), ("b", 6)]


def test_where_max_running_is_reached_the_youngest_batch_sequence_is_preempted_for_an_interactive_one() -> None:
    scheduler = make_scheduler(max_running=3, step_tokens=100)
    for item in (batch("old", 2, 50), sequence("i", 2, 50), batch("young", 2, 50), batch("later", 2)):
        scheduler.add(item)
    carry_out(scheduler, scheduler.schedule())
    assert [seq.request_id for seq in scheduler.running] == ["i", "old", "young"]
    scheduler.add(sequence("new", 3, 50))
    carry_out(scheduler, second := scheduler.schedule())
    assert names(second) == [("i", 1), ("new", 3), ("old", 1)]
    assert [seq.request_id for seq in scheduler.waiting] == ["young", "later"], "first of its class"
    scheduler.add(sequence("newer", 3, 50))
    carry_out(scheduler, scheduler.schedule())
    assert [seq.request_id for seq in scheduler.waiting] == ["old", "young", "later"]
    scheduler.add(sequence("newest", 3))
    scheduler.schedule()
    assert scheduler.num_preemptions == 2, "interactive ones are not preempted for others that wait"
    assert [seq.request_id for seq in scheduler.running] == ["i", "new", "newer"]
    scheduler.check()


def test_where_the_kv_cache_is_full_a_batch_sequence_is_preempted_for_an_interactive_one() -> None:
    scheduler = make_scheduler(blocks=9, step_tokens=64)
    scheduler.add(batch("b", 16, 8))
    scheduler.add(batch("c", 12, 8))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence("i", 16, 2))
    assert names(scheduler.schedule())[0] == ("i", 16)
    assert [seq.request_id for seq in scheduler.running] == ["b", "i"]
    scheduler.check()


def test_a_growing_batch_sequence_never_preempts_an_interactive_one() -> None:
    scheduler = make_scheduler(blocks=6, step_tokens=64)
    scheduler.add(batch("b", 10, 8))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence("i", 10, 8))
    while not scheduler.num_preemptions:
        carry_out(scheduler, scheduler.schedule())
        scheduler.check()
    assert [seq.request_id for seq in scheduler.running] == ["i"], "although b is the older one"


def test_a_growing_interactive_sequence_preempts_batch_ones_however_old() -> None:
    scheduler = make_scheduler(blocks=6, step_tokens=64)
    scheduler.add(batch("b", 9, 8))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence("i", 12, 8))
    carry_out(scheduler, scheduler.schedule())
    assert names(scheduler.schedule()) == [("i", 1)], "its 13th token needs a fourth block"
    assert [seq.request_id for seq in scheduler.waiting] == ["b"]
    scheduler.check()


def test_nothing_is_preempted_for_a_sequence_whose_adapter_is_still_loading() -> None:
    results = {"i": AcquireResult.LOADING}
    held: list[str] = []

    def acquire(seq: Sequence) -> AcquireResult:
        result = results.get(seq.request_id, AcquireResult.ACQUIRED)
        if result is AcquireResult.ACQUIRED:
            held.append(seq.request_id)
        return result

    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(
        cache, max_running=1, step_tokens=100, acquire=acquire, release=lambda seq: held.remove(seq.request_id)
    )
    scheduler.add(batch("b", 2, 50))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence("i", 2))
    carry_out(scheduler, second := scheduler.schedule())
    assert names(second) == [("b", 1)]
    assert scheduler.num_preemptions == 0
    results.clear()
    assert names(scheduler.schedule()) == [("i", 2)]
    assert held == ["i"], "the preempted sequence has released its adapter"


def test_a_batch_sequence_is_preempted_for_the_memory_of_its_adapter() -> None:
    """One adapter fits at a time, and the batch sequence has it."""
    held: list[str] = []

    def acquire(seq: Sequence) -> AcquireResult:
        if held:
            return AcquireResult.NO_CAPACITY
        held.append(seq.request_id)
        return AcquireResult.ACQUIRED

    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(
        cache, max_running=4, step_tokens=100, acquire=acquire, release=lambda seq: held.remove(seq.request_id)
    )
    scheduler.add(batch("b", 2, 50))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence("i", 2, 50))
    carry_out(scheduler, second := scheduler.schedule())
    assert names(second) == [("i", 2)]
    scheduler.add(sequence("j", 2))
    carry_out(scheduler, third := scheduler.schedule())
    assert names(third) == [("i", 1)], "an interactive one keeps its adapter"
    assert held == ["i"]


def test_a_sequence_without_blocks_releases_what_it_acquired() -> None:
    held: list[str] = []

    def acquire(seq: Sequence) -> AcquireResult:
        held.append(seq.request_id)
        return AcquireResult.ACQUIRED

    cache = KVCacheManager(GROUPS, [6, 6], 4)
    scheduler = Scheduler(
        cache, max_running=4, step_tokens=64, acquire=acquire, release=lambda seq: held.remove(seq.request_id)
    )
    scheduler.add(sequence("i", 13, 50))
    scheduler.add(batch("b", 4, 50))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(sequence("j", 20))
    carry_out(scheduler, scheduler.schedule())
    assert [seq.request_id for seq in scheduler.running] == ["i"]
    assert held == ["i"]


def assert_interactive_first(scheduler: Scheduler, scheduled: list[Scheduled]) -> None:
    """While an interactive sequence waits, or runs without a token in this step, no batch sequence has one."""
    order = [item.sequence.priority for item in scheduled]
    assert order == sorted(order)
    served = {item.sequence.request_id for item in scheduled}
    idle = [seq for seq in [*scheduler.running, *scheduler.waiting] if seq.request_id not in served]
    if any(seq.priority is Priority.INTERACTIVE for seq in idle):
        assert Priority.BATCH not in order


@settings(deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(1, 30), st.integers(1, 9), st.sampled_from(Priority), st.sampled_from([0, 9])),
        min_size=1,
        max_size=12,
    ),
    blocks=st.integers(12, 40),
    max_running=st.sampled_from([1, 2, 3, 7]),
    step_tokens=st.sampled_from([1, 2, 7, 16]),
    aborts=st.dictionaries(st.integers(0, 40), st.integers(0, 11), max_size=4),
)
def test_every_sequence_ends_in_any_order_of_arrivals_and_aborts(
    lengths: list[tuple[int, int, Priority, int]],
    blocks: int,
    max_running: int,
    step_tokens: int,
    aborts: dict[int, int],
) -> None:
    scheduler = make_scheduler(blocks=blocks, max_running=max_running, step_tokens=step_tokens)
    sequences = [sequence(f"{index:02}", *how) for index, how in enumerate(lengths)]
    arriving = list(sequences)
    for step in range(5000):
        if arriving:
            scheduler.add(arriving.pop(0))
        target = aborts.get(step)
        if target is not None and target < len(sequences) - len(arriving):
            victim = sequences[target]
            if victim.finish_reason is None:
                scheduler.finish(victim, FinishReason.ABORT)
                scheduler.check()
        has_work = scheduler.has_work
        scheduled = scheduler.schedule()
        scheduler.check()
        assert bool(scheduled) is has_work
        assert sum(item.num_tokens for item in scheduled) <= step_tokens
        assert len({item.sequence.request_id for item in scheduled}) == len(scheduled)
        assert_interactive_first(scheduler, scheduled)
        carry_out(scheduler, scheduled)
        scheduler.check()
        if not arriving and not scheduler.has_work:
            break
    assert all(seq.finish_reason is not None for seq in sequences)
    assert all(seq.num_output == seq.params.max_tokens for seq in sequences if seq.finish_reason is FinishReason.LENGTH)


def scored(name: str, length: int) -> Sequence:
    return Sequence.from_request(
        request(name, range(1000, 1000 + length), prompt_logprobs=0, max_tokens=1), num_groups=len(GROUPS)
    )


def score(scheduled: list[Scheduled]) -> None:
    for item in scheduled:
        for _ in item.sequence.scored_positions(item.num_tokens):
            assert item.sequence.scores is not None
            item.sequence.scores.add(LogprobsRow(-1.0, 1, []))


def test_a_scored_row_costs_more_of_the_budget_and_its_neighbours_still_decode() -> None:
    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(cache, max_running=4, step_tokens=10, scored_row_cost=2.5)
    scheduler.add(sequence("a", 3, max_tokens=9))
    carry_out(scheduler, scheduler.schedule())
    scheduler.add(scored("s", 12))
    scheduler.add(sequence("b", 20))
    steps = []
    for _ in range(5):
        steps.append(names(step := scheduler.schedule()))
        score(step)
        carry_out(scheduler, step)
        scheduler.check()
    # 9 are left for prompts: three scored rows for 7.5, then one of `b`; in the end two and one of `s` leave 3.
    assert steps[:3] == [[("a", 1), ("s", 3), ("b", 1)], [("a", 1), ("s", 3), ("b", 1)], [("a", 1), ("s", 3), ("b", 1)]]
    assert steps[3] == [("a", 1), ("s", 3), ("b", 3)]
    assert steps[4] == [("a", 1), ("b", 9)]


def test_a_row_that_costs_more_than_a_step_is_computed_nevertheless() -> None:
    scheduler = Scheduler(KVCacheManager(GROUPS, [40, 40], 4), max_running=4, step_tokens=2, scored_row_cost=5.0)
    scheduler.add(scored("s", 3))
    lengths = []
    while scheduler.has_work:
        step = scheduler.schedule()
        lengths.append([item.num_tokens for item in step])
        score(step)
        carry_out(scheduler, step)
    assert lengths == [[1], [1], [1]]
