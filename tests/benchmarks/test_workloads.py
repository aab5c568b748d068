"""The measured workloads are what the page says they are, and fair: fresh prompts, full lengths, known peers."""

from __future__ import annotations

from collections import Counter

import pytest
from benchmarks.compare import PEERS
from benchmarks.report import PAGE, SECTIONS
from benchmarks.roofline import Cost, Roofline, bound
from benchmarks.workloads import (
    BOS,
    BY_NAME,
    FEW_ADAPTERS,
    MANY_ADAPTERS,
    NUM_ADAPTERS,
    VOCABULARY,
    WORKLOADS,
    Traffic,
    Workload,
)

by_name = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)


@by_name
def test_prompts_have_the_stated_length_and_valid_ids(workload: Workload) -> None:
    prompts = workload.prompts(3)
    assert [len(prompt) for prompt in prompts] == [workload.prompt_tokens] * workload.streams
    assert {prompt[0] for prompt in prompts} == {BOS}
    assert all(VOCABULARY[0] <= token < VOCABULARY[1] for prompt in prompts for token in prompt[1:])


@by_name
def test_prompts_share_no_block_between_streams_or_repeats(workload: Workload) -> None:
    starts = Counter(tuple(prompt[:16]) for repeat in range(4) for prompt in workload.prompts(repeat))
    assert set(starts.values()) == {1}


@by_name
def test_prompts_are_the_same_for_every_engine(workload: Workload) -> None:
    assert workload.prompts(5) == BY_NAME[workload.name].prompts(5)


@by_name
def test_every_adapter_of_a_workload_gets_as_many_streams(workload: Workload) -> None:
    counts = Counter(workload.adapter_of(stream) for stream in range(workload.streams))
    assert len(set(counts.values())) == 1
    assert set(counts) == (set(range(workload.adapters)) if workload.adapters else {None})
    assert workload.adapters <= NUM_ADAPTERS


@by_name
def test_targets_are_for_peers_that_are_measured(workload: Workload) -> None:
    assert set(workload.targets) <= set(workload.peers) <= set(PEERS)
    refusing = [peer for peer in workload.targets if PEERS[peer].refuses(workload) is not None]
    assert refusing == []


@pytest.mark.parametrize("traffic", [FEW_ADAPTERS, MANY_ADAPTERS], ids=lambda traffic: traffic.name)
def test_traffic_follows_zipf_and_repeats_exactly(traffic: Traffic) -> None:
    drawn = [adapter for seed in range(50) for adapter in traffic.adapters(seed)]
    assert traffic.adapters(7) == traffic.adapters(7) != traffic.adapters(8)
    assert set(drawn) <= set(range(traffic.registered))
    counts = Counter(drawn)
    # Ranks 1 and 4 differ by 4 ** exponent; 9,600 draws keep the ratio within a quarter of that.
    assert counts[0] / counts[3] == pytest.approx(4**traffic.exponent, rel=0.25)
    assert len(traffic.prompt(11, 2)) == traffic.prompt_tokens


def test_a_bound_is_that_of_the_slower_of_reading_and_multiplying() -> None:
    cost = Cost(blocks_bytes=60e6, head_bytes=40e6, blocks_macs=60e6, head_macs=40e6)
    reads = Roofline(read_gbs=10, dot_gmacs=1e6, dot_set="avx2", amx_gmacs=0)
    multiplies = Roofline(read_gbs=1e6, dot_gmacs=10, dot_set="avx2", amx_gmacs=0)
    one = Workload("x", "x", "decode")
    assert bound(one, cost, 0, reads) == pytest.approx(100)
    assert bound(one, cost, 0, multiplies) == pytest.approx(100)
    many = Workload("x", "x", "decode", streams=16)
    assert bound(many, cost, 0, reads) == pytest.approx(1600)
    assert bound(many, cost, 0, multiplies) == pytest.approx(100)
    prefill = Workload("x", "x", "prefill", prompt_tokens=512)
    assert bound(prefill, cost, 0, multiplies) == pytest.approx(512 / ((512 * 60e6 + 40e6) / 10e9))


def test_the_page_has_a_place_for_every_table() -> None:
    page = PAGE.read_text()
    missing = [name for name in SECTIONS if f"<!-- table {name} -->" not in page or f"<!-- end {name} -->" not in page]
    assert missing == []
