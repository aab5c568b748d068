"""Grammars enforced while sampling: a matcher per sequence says which tokens may come next. llguidance does the work.

A grammar is about bytes and the model about tokens, so the engine is given the bytes of every token in a file that
`text/token_table.py` wrote; it still knows no text. The first request with a grammar reads the file and builds
llguidance's index of 262,144 tokens: about 50 MB and one to two seconds, in which every sequence waits once, because
llguidance holds the GIL meanwhile. Grammars are compiled in threads, because a hostile one may take as long as many
steps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

import llguidance
import msgspec

from intaglio.errors import EngineStepError, GrammarError
from intaglio.grammar import new_matcher
from intaglio.request import EngineRequest, TokenTable

logger = logging.getLogger(__name__)

_COMPILERS = 2  # threads
# How long a step waits for compilations that have just begun. An ordinary grammar is compiled within this time, so its
# request still joins the step.
_COMPILE_WAIT_S = 0.005
# The mask of an ordinary grammar takes less than a tenth of this. A sequence whose mask takes longer ends with an
# error, because it would slow the others.
_MAX_MASK_S = 0.25
# Tokens that match this are checked together inside a JSON string; each such group costs 16 MB.
_SLICES = ['[^"\\\\\\x00-\\x1F\\x7F]{1,30}']


class Matcher:
    """The state of one sequence's grammar. It outlives preemption: it advances over each token once.

    error  why it cannot go on, else None
    """

    def __init__(self, inner: llguidance.LLMatcher) -> None:
        self._inner = inner
        self.error: str | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the grammar allows no further token, only the end."""
        return self.error is None and self._inner.is_stopped()

    def allowed(self) -> bytes | None:
        """The tokens that may come next, as a bit mask for `Ops.mask_tokens`; stop tokens are among them exactly where
        the grammar may end. None after an error.
        """
        began = time.thread_time()
        mask = self._inner.compute_bitmask()
        if self._inner.is_error():
            self.error = "the grammar exceeds the limits of its parser, or allows no further token"
        elif time.thread_time() - began > _MAX_MASK_S:
            self.error = f"the token mask of the grammar took more than {_MAX_MASK_S:g} s"
        return mask if self.error is None else None

    def advance(self, token: int) -> None:
        """Advance over the token that was sampled."""
        if not self._inner.consume_token(token):
            self.error = f"token {token} does not follow the grammar"


class GrammarCompiler:
    """Compiles the grammars of requests to matchers, in threads.

    table_path  a TokenTable as msgpack
    end_ids     tokens that end a completion
    """

    def __init__(self, table_path: Path | None, end_ids: Iterable[int]) -> None:
        self._table_path = table_path
        self._end_ids = sorted(end_ids)
        self._vocabulary: llguidance.LLTokenizer | None = None
        self._vocabulary_lock = threading.Lock()
        self._compiling: dict[str, Future[Matcher]] = {}
        self._compilers = ThreadPoolExecutor(_COMPILERS, "grammar-compiler")

    def prepare(self, requests: Iterable[EngineRequest]) -> None:
        """Start compiling the grammars of these requests."""
        new = []
        for request in requests:
            grammar = request.params.grammar
            if grammar is not None and request.request_id not in self._compiling:
                new.append(self._compilers.submit(self._compile, grammar))
                self._compiling[request.request_id] = new[-1]
        if new:
            wait(new, _COMPILE_WAIT_S)

    def acquire(self, request: EngineRequest) -> Matcher | None:
        """The matcher of a request, None while its grammar is being compiled. Raises GrammarError for a bad one."""
        found = self._compiling.get(request.request_id)
        if found is None or not found.done():
            return None
        del self._compiling[request.request_id]
        try:
            return found.result()
        except (GrammarError, EngineStepError):
            raise
        except Exception as error:  # the machine's fault or ours; other requests go on
            logger.exception("a grammar could not be compiled")
            raise EngineStepError(f"the grammar could not be compiled: {type(error).__name__}: {error}") from error

    def drop(self, request_id: str) -> None:
        """The request has ended; harmless if it has no grammar."""
        found = self._compiling.pop(request_id, None)
        if found is not None:
            found.cancel()

    def wait(self, timeout_s: float) -> None:
        """Wait until a grammar is compiled, if any is being compiled."""
        wait(self._compiling.values(), timeout_s, FIRST_COMPLETED)

    def check(self, waiting: Iterable[str]) -> None:
        """Raise AssertionError unless only requests that wait are being prepared."""
        assert set(self._compiling) <= set(waiting), "a grammar is compiled for a request that does not wait"

    def _compile(self, grammar: str) -> Matcher:
        inner = new_matcher(self._load_vocabulary(), grammar)
        if inner.is_error():
            raise GrammarError(f"the grammar cannot be served: {inner.get_error()[:300]}")
        return Matcher(inner)

    def _load_vocabulary(self) -> llguidance.LLTokenizer:
        with self._vocabulary_lock:
            if self._vocabulary is None:
                if self._table_path is None:
                    raise EngineStepError(
                        "this engine was started without a token table, so it cannot enforce grammars"
                    )
                began = time.monotonic()
                self._vocabulary = _read_vocabulary(self._table_path, self._end_ids)
                logger.info("token index for grammars made in %.1f s", time.monotonic() - began)
            return self._vocabulary


class _TokenTableWrapper(llguidance.TokenizerWrapper):
    """The token table in the form that llguidance reads."""

    def __init__(self, table: TokenTable, end_ids: list[int]) -> None:
        self.is_tokenizer_wrapper = True
        self.tokens = table.pieces
        self.special_token_ids = table.controls
        self.eos_token_id = end_ids[0]
        self.bos_token_id = None

    def __call__(self, text: str) -> list[int]:
        """llguidance would call this to choose the tokens of fixed text, but `new_matcher` switches that off."""
        raise NotImplementedError("the engine samples every token; llguidance tokenizes nothing")


def _read_vocabulary(path: Path, end_ids: list[int]) -> llguidance.LLTokenizer:
    table = msgspec.msgpack.decode(path.read_bytes(), type=TokenTable)
    wrapper = _TokenTableWrapper(table, end_ids)
    vocabulary = llguidance.LLTokenizer(wrapper, len(table.pieces), end_ids, _SLICES)
    wrapper.tokens = []  # llguidance keeps the wrapper, but has copied the tokens
    return vocabulary
