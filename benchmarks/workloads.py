"""The workloads: prompts, lengths, adapters. The same definitions for our engine and every peer.

Prefill and decode are different work. Prefill computes all tokens of a prompt in one pass and is bound by arithmetic;
decode gives one token per pass and is bound by reading the weights, until enough streams share each read. A workload
therefore says which of three figures it is about:

    decode   tokens per second after the first token of every stream
    prefill  prompt tokens per second until the first token
    output   output tokens per second from the first request to the last token, prompts included

Standard library only: every peer imports this file in an environment of its own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

BOS = 2
VOCABULARY = (1_000, 250_000)  # ids drawn from: ordinary pieces in both models' vocabularies
NUM_ADAPTERS = 8
RANK = 8
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Model = Literal["270m", "2b", "7b"]
Figure = Literal["decode", "prefill", "output"]


@dataclass(frozen=True, slots=True)
class Workload:
    """Streams that start together, each with a prompt of its own and, if `adapters` > 0, one of that many adapters.

    tiles    whether our engine may use matrix tiles (AMX) if the machine has them; without them (`--kernels`) one
             stream is faster and many are slower
    rank, projections  of the adapters
    targets  peer -> how many times its figure ours should be
    peers    the peers to compare with
    """

    name: str
    title: str
    figure: Figure
    model: Model = "270m"
    streams: int = 1
    prompt_tokens: int = 64
    output_tokens: int = 64
    adapters: int = 0
    rank: int = RANK
    projections: tuple[str, ...] = PROJECTIONS
    tiles: bool = True
    targets: Mapping[str, float] = field(default_factory=dict)
    peers: tuple[str, ...] = ()

    def prompts(self, repeat: int) -> list[list[int]]:
        """Token ids, BOS first; different in every repeat and stream, so that no prefix cache has an effect."""
        draw = random.Random(f"{self.name}/{repeat}")
        return [
            [BOS] + [draw.randrange(*VOCABULARY) for _ in range(self.prompt_tokens - 1)] for _ in range(self.streams)
        ]

    def adapter_of(self, stream: int) -> int | None:
        """Index of the stream's adapter; None is the base model."""
        return stream % self.adapters if self.adapters else None


WORKLOADS = (
    Workload(
        "one_stream",
        "270M, one stream, 64 in / 64 out",
        "decode",
        targets={"llama_cpp": 1.6},
        peers=("llama_cpp", "openvino", "vllm", "transformers"),
    ),
    Workload(
        "one_stream_no_tiles",
        "the same, our engine without matrix tiles",
        "decode",
        tiles=False,
        targets={"llama_cpp": 1.6},
        peers=("llama_cpp",),
    ),
    Workload(
        "prefill_512",
        "270M, prefill 512",
        "prefill",
        prompt_tokens=512,
        output_tokens=1,
        targets={"openvino": 1.5, "llama_cpp": 4},
        peers=("llama_cpp", "openvino", "vllm", "transformers"),
    ),
    Workload(
        "streams_16_base",
        "270M, 16 streams, base model",
        "output",
        streams=16,
        peers=("llama_cpp", "openvino", "vllm"),
    ),
    Workload(
        "streams_8_adapters_8",
        "270M, 8 streams over 8 adapters",
        "output",
        streams=8,
        adapters=8,
        peers=("llama_cpp", "vllm", "transformers"),
    ),
    Workload(
        "streams_16_adapters_8",
        "270M, 16 streams over 8 adapters",
        "output",
        streams=16,
        adapters=8,
        targets={"vllm": 8, "llama_cpp": 12},
        peers=("llama_cpp", "vllm", "transformers"),
    ),
    Workload(
        "2b_one_stream",
        "Gemma-1 2B shape Q4_0, one stream, 64 in / 64 out",
        "decode",
        model="2b",
        targets={"llama_cpp": 1.2},
        peers=("llama_cpp",),
    ),
    Workload(
        "2b_one_stream_no_tiles",
        "the same, our engine without matrix tiles",
        "decode",
        model="2b",
        tiles=False,
        targets={"llama_cpp": 1.2},
        peers=("llama_cpp",),
    ),
    Workload(
        "2b_prefill_128",
        "Gemma-1 2B shape Q4_0, prefill 128",
        "prefill",
        model="2b",
        prompt_tokens=128,
        output_tokens=1,
        targets={"llama_cpp": 2.5},
        peers=("llama_cpp",),
    ),
    Workload(
        "2b_streams_8_adapters_8",
        "Gemma-1 2B shape Q4_0, 8 streams over 8 adapters",
        "output",
        model="2b",
        streams=8,
        adapters=8,
        targets={"llama_cpp": 4},
        peers=("llama_cpp",),
    ),
)
# Not part of `make bench`: `make bench-7b` runs them.
WORKLOADS_7B = (
    Workload(
        "7b_one_stream",
        "Gemma-1 7B shape Q4_0, one stream, 64 in / 64 out",
        "decode",
        model="7b",
        peers=("llama_cpp",),
    ),
    Workload(
        "7b_prefill_512",
        "Gemma-1 7B shape Q4_0, prefill 512",
        "prefill",
        model="7b",
        prompt_tokens=512,
        output_tokens=1,
        peers=("llama_cpp",),
    ),
    Workload(
        "7b_streams_8_rank_8",
        "Gemma-1 7B shape Q4_0, 8 streams over 8 adapters, rank 8 on q and v",
        "output",
        model="7b",
        streams=8,
        output_tokens=32,
        adapters=8,
        projections=("q_proj", "v_proj"),
        peers=("llama_cpp",),
    ),
    Workload(
        "7b_streams_8_rank_16",
        "Gemma-1 7B shape Q4_0, 8 streams over 8 adapters, rank 16 on all seven",
        "output",
        model="7b",
        streams=8,
        output_tokens=32,
        adapters=8,
        rank=16,
        peers=("llama_cpp",),
    ),
)
BY_NAME = {workload.name: workload for workload in (*WORKLOADS, *WORKLOADS_7B)}


@dataclass(frozen=True, slots=True)
class Traffic:
    """A sequence of requests, `streams` of them running at any time, with adapters drawn by Zipf's law."""

    name: str
    registered: int
    streams: int = 16
    requests: int = 192
    prompt_tokens: int = 64
    output_tokens: int = 64
    exponent: float = 1.0

    def adapters(self, seed: int) -> list[int]:
        """The adapter of each request: the k-th most popular is drawn in proportion to 1 / k ** exponent."""
        weights = list(accumulate((k + 1) ** -self.exponent for k in range(self.registered)))
        return random.Random(f"{self.name}/{seed}").choices(
            range(self.registered), cum_weights=weights, k=self.requests
        )

    def prompt(self, request: int, seed: int) -> list[int]:
        draw = random.Random(f"{self.name}/{seed}/{request}")
        return [BOS] + [draw.randrange(*VOCABULARY) for _ in range(self.prompt_tokens - 1)]


FEW_ADAPTERS = Traffic("traffic_8", registered=8)
MANY_ADAPTERS = Traffic("traffic_1000", registered=1000)
# By format. In int8 500 adapters are enough; each further one takes the time of a verification.
GROWING_ADAPTERS = {
    fmt: tuple(Traffic(f"traffic_{count}", registered=count) for count in counts)
    for fmt, counts in {"f16": (5, 50, 500, 2000), "int8": (5, 50, 500)}.items()
}
