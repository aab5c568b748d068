"""The engine: sequences go in, each step runs one forward for all of them and gives each at most one token.

    schedule -> lay out the batch -> forward -> sample -> score prompts -> commit

It sees token ids, adapter digests and sampling parameters. It knows no text (stop strings are found in `completion.py`
and `text/detokenizer.py`), no names and no sockets. It waits only for adapters that are being read and grammars that
are being compiled, and for these only briefly.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

import msgspec

from intaglio.engine.batch import build_batch
from intaglio.engine.grammar import GrammarCompiler
from intaglio.engine.kv_cache import CacheShape, KVCacheManager, longest_sequence
from intaglio.engine.sampler import SampledToken, sample_tokens
from intaglio.engine.scheduler import Scheduled, Scheduler
from intaglio.engine.scoring.scorer import score_prompts, scored_row_cost
from intaglio.engine.sequence import Sequence
from intaglio.errors import AdapterError, AdapterUseError, EngineStepError, GrammarError, IntaglioError
from intaglio.lora.pool import IDLE_WAIT_S, READ_AHEAD, AcquireResult, AdapterPool
from intaglio.model.gemma import Gemma
from intaglio.ops import AdapterWeights, KVFormat, KVGroup, Ops
from intaglio.request import EngineRequest, FinishReason, TokenOutput
from intaglio.status import AdapterInMemory, EngineStatus

logger = logging.getLogger(__name__)

_NO_LOGITS = "the model gave no finite logits for this sequence"


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The bounds of a step and of the cache; `Settings` describes the fields, which have the same names there."""

    max_running: int = 32
    step_tokens: int = 512
    kv_block_size: int = 16
    kv_cache_bytes: int = 1 << 30
    kv_format: KVFormat = "f32"
    prefix_cache: bool = True


class Engine:
    """One base model and the sequences that use it.

    stop_ids          tokens that end a completion
    vocab_size        ids that may be sampled (the model may have padding rows above)
    grammar_compiler  makes the matchers that enforce grammars; None refuses requests that have a grammar
    """

    def __init__(
        self,
        model: Gemma,
        adapters: AdapterPool,
        ops: Ops,
        limits: EngineLimits,
        *,
        stop_ids: frozenset[int],
        vocab_size: int,
        grammar_compiler: GrammarCompiler | None = None,
    ) -> None:
        config = model.config
        shape = CacheShape(config, limits.kv_format, limits.kv_block_size, limits.max_running, limits.step_tokens)
        groups, blocks = shape.groups, shape.plan_blocks(limits.kv_cache_bytes)
        self.max_sequence_tokens = longest_sequence(groups, blocks, limits.kv_block_size, config.context_length)
        self._model = model
        self._adapters = adapters
        self._grammar_compiler = grammar_compiler or GrammarCompiler(None, stop_ids)
        self._ops = ops
        self._block_size = limits.kv_block_size
        self._stop_ids = stop_ids
        self._vocab_size = min(vocab_size, config.vocab_size)
        self._kv: list[KVGroup] = [
            ops.new_kv(
                len(group.layers), count, limits.kv_block_size, config.num_kv_heads, config.head_dim, limits.kv_format
            )
            for group, count in zip(groups, blocks, strict=True)
        ]
        self._block_bytes = [shape.block_bytes(group) for group in groups]
        self._cache = KVCacheManager(groups, blocks, limits.kv_block_size, prefix_cache=limits.prefix_cache)
        self.scheduler = Scheduler(
            self._cache,
            max_running=limits.max_running,
            step_tokens=limits.step_tokens,
            acquire=self._acquire,
            release=self._release,
            scored_row_cost=scored_row_cost(config),
        )
        self._sequences: dict[str, Sequence] = {}
        self._refused: list[tuple[Sequence, IntaglioError]] = []
        self._num_steps = self._num_prompt_tokens = self._num_completion_tokens = 0

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    def add(self, request: EngineRequest) -> None:
        """Queue a request. Its length was checked by the client against `max_sequence_tokens`."""
        assert request.prompt_ids, "a prompt has at least its BOS"
        assert request.request_id not in self._sequences, f"request id {request.request_id} is in use"
        assert request.params.max_tokens is not None, "the client has chosen how many tokens the window has room for"
        assert len(request.prompt_ids) + request.params.max_tokens <= self.max_sequence_tokens, "prompt too long"
        sequence = Sequence.from_request(request, len(self._kv))
        self._sequences[request.request_id] = sequence
        self.scheduler.add(sequence)

    def abort(self, request_id: str) -> list[TokenOutput]:
        """End a request now; unknown ids are ignored (it may have ended a moment ago)."""
        sequence = self._sequences.get(request_id)
        return [] if sequence is None else [self._end_sequence(sequence, FinishReason.ABORT)]

    def preallocate_adapter_memory(self) -> None:
        """Call it once when there is no work, before waiting for messages. Takes a few milliseconds."""
        self._ops.preallocate_adapter_memory()

    def step(self) -> list[TokenOutput]:
        """Run one forward for everything that is scheduled. Returns an output for each sampled token and each sequence
        that ended.

        If it returns nothing, it may have waited for an adapter or a grammar: receive new requests and call it again.
        """
        self._prepare_upcoming()
        scheduled = self.scheduler.schedule()
        outputs = self._end_refused()
        if not scheduled:
            if not outputs:
                self._grammar_compiler.wait(IDLE_WAIT_S)
            return outputs
        try:
            outputs += self._run_step(scheduled)
        except (IntaglioError, ArithmeticError, ValueError, MemoryError, IndexError, AssertionError) as error:
            # Our fault or the machine's: these sequences end with an error that says so, and the loop goes on.
            logger.exception("a step of %d sequences failed", len(scheduled))
            reason = f"the engine could not run this step: {type(error).__name__}: {error}"
            outputs += [self._end_sequence(item.sequence, FinishReason.ERROR, error=reason) for item in scheduled]
        return outputs + self._end_refused()

    def _run_step(self, scheduled: list[Scheduled]) -> list[TokenOutput]:
        batch = build_batch(scheduled, self._block_size, self._ops, self._adapter_of)
        hidden = self._model.hidden(batch.forward, self._kv)
        sequences = [item.sequence for item in batch.sampling]
        sampled: list[SampledToken] = []
        if sequences:
            logits = self._model.logits(hidden, batch.forward.logit_rows, batch.forward.logit_adapters)
            sampled = sample_tokens(sequences, logits, self._vocab_size, self._ops, self._stop_ids)
        score_prompts(batch, hidden, self._model, self._ops, self._vocab_size, self._adapter_of)
        for copy in self.scheduler.fork_prompts(scheduled):
            self._ops.copy_kv_block(self._kv[copy.group], copy.source, copy.target)
        self._num_steps += 1
        self._num_prompt_tokens += sum(item.num_prompt_tokens for item in scheduled)
        only_scored = [item.sequence for item in scheduled if item.completes and not item.samples]
        for item in scheduled:
            self._cache.commit(item.sequence, item.num_tokens)
        pairs = zip(sequences, sampled, strict=True)
        outputs = [output for sequence, token in pairs for output in self._append_token(sequence, token)]
        return outputs + [self._end_scored(sequence) for sequence in only_scored]

    def _end_scored(self, sequence: Sequence) -> TokenOutput:
        """The end of a sequence without completion."""
        if sequence.scores is not None and sequence.scores.failed:
            return self._end_sequence(sequence, FinishReason.ERROR, error=_NO_LOGITS)
        return self._end_sequence(sequence, FinishReason.LENGTH)

    def _append_token(self, sequence: Sequence, sampled: SampledToken) -> list[TokenOutput]:
        """Append the sampled token, and end the sequence if it was the last one. Where a grammar is complete, the end
        is an output of its own: the token before it is part of the completion.
        """
        token, matcher = sampled.token, sequence.matcher
        if matcher is not None and matcher.error is None and token >= 0:
            matcher.advance(token)
        if matcher is not None and matcher.error is not None:
            return [self._end_sequence(sequence, FinishReason.ERROR, error=matcher.error)]
        if token < 0 or (sequence.scores is not None and sequence.scores.failed):
            return [self._end_sequence(sequence, FinishReason.ERROR, error=_NO_LOGITS)]
        sequence.tokens.append(token)
        self._num_completion_tokens += 1
        if token in sequence.end_ids(self._stop_ids):
            return [self._end_sequence(sequence, FinishReason.STOP, sampled)]
        if matcher is not None and matcher.is_complete:
            return [self._make_output(sequence, sampled, None), self._end_sequence(sequence, FinishReason.STOP)]
        if sequence.num_output >= sequence.max_tokens:
            return [self._end_sequence(sequence, FinishReason.LENGTH, sampled)]
        return [self._make_output(sequence, sampled, None)]

    def _end_sequence(
        self, sequence: Sequence, reason: FinishReason, sampled: SampledToken | None = None, error: str | None = None
    ) -> TokenOutput:
        self.scheduler.finish(sequence, reason)
        self._grammar_compiler.drop(sequence.request_id)
        del self._sequences[sequence.request_id]
        return self._make_output(sequence, sampled, reason, error)

    def _end_refused(self) -> list[TokenOutput]:
        """End what could not acquire what it needs."""
        outputs = [self._refuse_sequence(sequence, error) for sequence, error in self._refused]
        self._refused.clear()
        return outputs

    def _refuse_sequence(self, sequence: Sequence, error: IntaglioError) -> TokenOutput:
        output = self._end_sequence(sequence, FinishReason.ERROR, error=str(error))
        return msgspec.structs.replace(output, refused=isinstance(error, AdapterUseError))

    def _make_output(
        self, sequence: Sequence, sampled: SampledToken | None, reason: FinishReason | None, error: str | None = None
    ) -> TokenOutput:
        token, logprobs = (None, None) if sampled is None else (sampled.token, sampled.logprobs)
        prompt_logprobs = None if reason is FinishReason.ERROR else sequence.take_scores()
        return TokenOutput(
            sequence.request_id, token, reason, sequence.num_cached, error, logprobs, prompt_logprobs=prompt_logprobs
        )

    # -- what a sequence needs besides blocks: its adapters, and the matcher of its grammar

    def _prepare_upcoming(self) -> None:
        """Start to read the adapters and compile the grammars of the next sequences, before these can be admitted."""
        upcoming = self.scheduler.next_to_admit(READ_AHEAD)
        self._grammar_compiler.prepare(sequence.request for sequence in upcoming if sequence.matcher is None)
        mixes = [sequence.adapters for sequence in upcoming if sequence.adapters]
        self._adapters.prepare(mixes, idle=not self.scheduler.running and len(mixes) == len(upcoming))

    def _acquire(self, sequence: Sequence) -> AcquireResult:
        try:
            if sequence.params.grammar is not None and sequence.matcher is None:
                sequence.matcher = self._grammar_compiler.acquire(sequence.request)
                if sequence.matcher is None:
                    return AcquireResult.LOADING
            return self._adapters.acquire(sequence.adapters)
        except (AdapterError, AdapterUseError, GrammarError, EngineStepError) as error:
            self._refused.append((sequence, error))
            return AcquireResult.LOADING  # it ends in this step and must not block the sequences behind it

    def _release(self, sequence: Sequence) -> None:
        self._adapters.release(sequence.adapters)

    def _adapter_of(self, digest: str) -> AdapterWeights:
        return self._adapters.get(digest).prepared

    def status(self) -> EngineStatus:
        """What it is doing now, and its counters."""
        running = self.scheduler.running
        uses = Counter(digest for one in running for digest in {part.ref.digest for part in one.adapters})
        pools = list(zip(self._cache.pools, self._block_bytes, strict=True))
        return EngineStatus(
            running=len(running),
            running_on_base=sum(not one.adapters for one in running),
            waiting=len(self.scheduler.waiting),
            adapters=[AdapterInMemory(one.digest, one.nbytes, uses[one.digest]) for one in self._adapters.resident],
            adapter_cache_bytes=self._adapters.budget_bytes,
            kv_cache_bytes=sum(pool.num_blocks * size for pool, size in pools),
            kv_used_bytes=sum((pool.num_blocks - pool.num_idle) * size for pool, size in pools),
            kv_prefix_bytes=sum(pool.num_cached * size for pool, size in pools),
            steps=self._num_steps,
            computed_prompt_tokens=self._num_prompt_tokens,
            cached_prompt_tokens=self.scheduler.num_cached_tokens,
            completion_tokens=self._num_completion_tokens,
            preemptions=self.scheduler.num_preemptions,
        )

    def check(self) -> None:
        """Raise AssertionError unless every part agrees with the others."""
        self.scheduler.check()
        self._adapters.check(Counter(one.ref.digest for seq in self.scheduler.running for one in seq.adapters))
        self._grammar_compiler.check(seq.request_id for seq in self.scheduler.waiting)
        assert set(self._sequences) == {seq.request_id for seq in [*self.scheduler.running, *self.scheduler.waiting]}
