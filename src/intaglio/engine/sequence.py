"""One request inside the engine: its tokens, how far they are computed, and the cache blocks it holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from intaglio.engine.grammar import Matcher
from intaglio.engine.scoring.prompt_scores import PromptScores
from intaglio.request import (
    EngineRequest,
    FinishReason,
    Priority,
    PromptLogprobs,
    SamplingParams,
    ScaledAdapter,
    mix_identity,
)


class SequenceState(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True)
class BlockTable:
    """The blocks a sequence holds in one KV group.

    blocks       block ids; blocks[i] holds the positions from (first_block + i) * block_size
    first_block  how many older blocks have fallen out of the window and were given back
    """

    blocks: list[int] = field(default_factory=list)
    first_block: int = 0

    @property
    def end_block(self) -> int:
        return self.first_block + len(self.blocks)


@dataclass(slots=True, eq=False)
class Sequence:
    """tokens = prompt + output so far. The first `num_computed` have their keys and values in the cache.

    A preempted sequence keeps its tokens and starts again from num_computed 0: output tokens are computed again, not
    sampled again. So its matcher, which has advanced over each of them once, stays as it is.

    digest  identity of the adapters and scales that its rows are computed with; None is the base model
    """

    request: EngineRequest
    tokens: list[int]
    tables: list[BlockTable]
    digest: str | None = None
    state: SequenceState = SequenceState.WAITING
    num_computed: int = 0
    num_cached: int = 0  # prompt tokens taken from the prefix cache, or from another of its group, at first admission
    block_keys: list[bytes] = field(default_factory=list)  # prefix-cache keys of the full blocks, grown on demand
    finish_reason: FinishReason | None = None
    was_admitted: bool = False
    matcher: Matcher | None = None  # enforces its grammar, if it has one; from first admission on
    scores: PromptScores | None = None  # of its prompt, if its request asks for them
    scores_sent: bool = False

    @classmethod
    def from_request(cls, request: EngineRequest, num_groups: int) -> Sequence:
        tables = [BlockTable() for _ in range(num_groups)]
        digest = mix_identity(request.adapters)
        num_best = request.params.prompt_logprobs
        scores = None if num_best is None else PromptScores(len(request.prompt_ids) - 1, num_best)
        return cls(request=request, tokens=list(request.prompt_ids), tables=tables, digest=digest, scores=scores)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def params(self) -> SamplingParams:
        return self.request.params

    @property
    def max_tokens(self) -> int:
        assert self.params.max_tokens is not None, "Engine.add has checked it"
        return self.params.max_tokens

    @property
    def priority(self) -> Priority:
        return self.request.priority

    @property
    def adapters(self) -> tuple[ScaledAdapter, ...]:
        return self.request.adapters

    @property
    def group(self) -> str | None:
        return self.request.group

    @property
    def num_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def num_output(self) -> int:
        return len(self.tokens) - self.num_prompt

    @property
    def num_pending(self) -> int:
        """Tokens whose keys and values are still to be computed: 1 while decoding."""
        return len(self.tokens) - self.num_computed

    @property
    def num_reusable(self) -> int:
        """Tokens at its start whose keys and values may come from the prefix cache. A row that has no score yet has to
        be computed.
        """
        return len(self.tokens) if self.scores is None or self.scores.is_complete else len(self.scores)

    def end_ids(self, stop_ids: frozenset[int]) -> frozenset[int]:
        """The tokens that end it. stop_ids: the model's own, which it may be asked to ignore, but not under a grammar,
        whose end they are.
        """
        own = frozenset() if self.params.ignore_stop_tokens and self.matcher is None else stop_ids
        return own.union(self.params.stop_token_ids)

    def scored_positions(self, num_tokens: int) -> range:
        """Those of its next `num_tokens` tokens whose rows give a score. A preempted sequence computes rows again whose
        scores it has.
        """
        if self.scores is None or self.scores.is_complete:
            return range(0)
        end = min(self.num_computed + num_tokens, self.scores.num_rows)
        return range(max(self.num_computed, len(self.scores)), end)

    def can_share_scores(self, other: Sequence) -> bool:
        """Whether it needs no scores of its prompt, or `other`, which has the same prompt, has all that it needs."""
        if self.scores is None:
            return True
        return other.scores is not None and other.scores.is_complete and other.scores.num_best == self.scores.num_best

    def take_scores(self) -> PromptLogprobs | None:
        """The scores of its prompt for its first output, None for every other."""
        if self.scores is None or self.scores_sent or not self.scores.is_complete:
            return None
        self.scores_sent = True
        return self.scores.packed()
