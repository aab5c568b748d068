from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from intaglio.engine.kv_cache import KVCacheManager
from intaglio.engine.scheduler import Scheduled, Scheduler
from intaglio.engine.sequence import Sequence
from intaglio.lora.pool import Place
from intaglio.model.gemma import KVGroupShape
from intaglio.request import FinishReason
from tests.helpers.engines import request

GROUPS = [KVGroupShape(None, (0,)), KVGroupShape(8, (1,))]


def make_scheduler(blocks: int = 40, max_running: int = 4, step_tokens: int = 8) -> Scheduler:
    cache = KVCacheManager(GROUPS, [blocks, blocks], 4)
    return Scheduler(cache, max_running=max_running, step_tokens=step_tokens)


def sequence(name: str, length: int, max_tokens: int = 4) -> Sequence:
    offset = sum(name.encode()) * 1000  # no common prefixes
    return Sequence.from_request(
        request(name, range(offset, offset + length), max_tokens=max_tokens), num_groups=len(GROUPS)
    )


def carry_out(scheduler: Scheduler, scheduled: list[Scheduled]) -> None:
    """What the engine does with a step, with 0 for every chosen token."""
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


def test_a_sequence_whose_adapter_is_coming_lets_others_go_first_and_keeps_its_place() -> None:
    places = {"a": Place.COMING, "b": Place.TAKEN, "c": Place.COMING, "d": Place.TAKEN}
    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(cache, max_running=3, step_tokens=100, may_run=lambda seq: places[seq.request_id])
    for name in places:
        scheduler.add(sequence(name, 2))
    assert [seq.request_id for seq in scheduler.next_to_run(0)] == ["a", "b", "c"]
    assert [seq.request_id for seq in scheduler.next_to_run(1)] == ["a", "b", "c", "d"]
    assert names(scheduler.schedule()) == [("b", 2), ("d", 2)]
    assert [seq.request_id for seq in scheduler.waiting] == ["a", "c"]
    places["a"] = Place.TAKEN
    assert ("a", 2) in names(scheduler.schedule())
    scheduler.check()


def test_a_sequence_whose_adapter_finds_no_room_holds_the_queue_lest_it_never_runs() -> None:
    places = {"a": Place.TAKEN, "b": Place.NONE, "c": Place.TAKEN}
    cache = KVCacheManager(GROUPS, [40, 40], 4)
    scheduler = Scheduler(cache, max_running=3, step_tokens=100, may_run=lambda seq: places[seq.request_id])
    for name in places:
        scheduler.add(sequence(name, 2))
    assert names(scheduler.schedule()) == [("a", 2)]
    assert [seq.request_id for seq in scheduler.waiting] == ["b", "c"]


def test_the_youngest_gives_way_when_blocks_run_out_and_comes_back_first() -> None:
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
    assert young.num_output > 0, "what it had chosen is kept"


@settings(deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=1, max_size=12),
    blocks=st.integers(12, 40),
    max_running=st.sampled_from([1, 2, 3, 7]),
    step_tokens=st.sampled_from([1, 2, 7, 16]),
    aborts=st.dictionaries(st.integers(0, 40), st.integers(0, 11), max_size=4),
)
def test_every_sequence_ends_whatever_arrives(
    lengths: list[tuple[int, int]], blocks: int, max_running: int, step_tokens: int, aborts: dict[int, int]
) -> None:
    scheduler = make_scheduler(blocks=blocks, max_running=max_running, step_tokens=step_tokens)
    sequences = [sequence(f"{index:02}", length, max_tokens) for index, (length, max_tokens) in enumerate(lengths)]
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
        scheduled = scheduler.schedule()
        scheduler.check()
        assert sum(item.num_tokens for item in scheduled) <= step_tokens
        assert len({item.sequence.request_id for item in scheduled}) == len(scheduled)
        carry_out(scheduler, scheduled)
        scheduler.check()
        if not arriving and not scheduler.has_work:
            break
    assert all(seq.finish_reason is not None for seq in sequences)
    assert all(seq.num_output == seq.params.max_tokens for seq in sequences if seq.finish_reason is FinishReason.LENGTH)
