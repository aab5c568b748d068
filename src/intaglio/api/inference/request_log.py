"""Collects the timing and usage of one request, and writes its log line at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from intaglio.api.inference.results import Usage, usage_shape
from intaglio.errors import EngineError, IntaglioError
from intaglio.request import FinishReason, ScaledAdapter, mix_identity

if TYPE_CHECKING:
    from intaglio.llm import TextDelta
    from intaglio.llm import Usage as CountedUsage

logger = logging.getLogger(__name__)

_SUCCESSFUL_ENDS = (FinishReason.STOP, FinishReason.LENGTH)


class RequestLog:
    """The log of one request: `add` every delta, `close` once."""

    def __init__(
        self, request_id: str, model: str, adapters: Sequence[ScaledAdapter] = (), *, answered_by: str | None = None
    ) -> None:
        self.request_id = request_id
        self.finish_reason: FinishReason | None = None
        self.num_tokens = 0  # of the completion, so far
        self.usage: CountedUsage | None = None
        self.stop_string: str | None = None  # the one that ended the completion
        answering = f" answered_by={answered_by}" if answered_by else ""
        self._subject = f"model={model}{answering} adapter={_format_adapters(adapters)}"
        self._started = time.perf_counter()
        self._first: float | None = None

    def add(self, delta: TextDelta) -> None:
        """Record a delta. Raises its failure, or EngineError if it ends the request without success."""
        if self._first is None:
            self._first = time.perf_counter()
        self.num_tokens = delta.num_tokens
        if delta.finish_reason is None:
            return
        self.finish_reason, self.usage, self.stop_string = delta.finish_reason, delta.usage, delta.stop_string
        if delta.finish_reason not in _SUCCESSFUL_ENDS:
            raise delta.failure or EngineError(f"the completion ended with {delta.finish_reason.value}")

    @property
    def succeeded(self) -> bool:
        return self.finish_reason in _SUCCESSFUL_ENDS

    def end(self) -> tuple[Usage, str]:
        """Usage and finish reason for the response. Call it after the last delta."""
        if self.usage is None or self.finish_reason is None:
            raise EngineError("the completion ended without usage and a finish reason")
        counted = self.usage
        return usage_shape(
            counted.prompt_tokens, counted.completion_tokens, counted.cached_tokens
        ), self.finish_reason.value

    def close(self, error: BaseException | None = None) -> None:
        """Write the log line. `error` is the exception that ended the request early, if any."""
        now = time.perf_counter()
        reason = self.finish_reason.value if self.finish_reason else "abort"
        if isinstance(error, IntaglioError):
            reason = f"{type(error).__name__}: {error}"
        ttft = "-" if self._first is None else f"{self._first - self._started:.3f}s"
        logger.info(
            "run %s %s prompt=%s completion=%s ttft=%s total=%.3fs reason=%s",
            self.request_id,
            self._subject,
            self.usage.prompt_tokens if self.usage else "-",
            self.usage.completion_tokens if self.usage else "-",
            ttft,
            now - self._started,
            reason,
        )


def _format_adapters(adapters: Sequence[ScaledAdapter]) -> str:
    """The identity of the adapters; for a scaled adapter or a mix also the digests and scales."""
    identity = mix_identity(adapters)
    if identity is None or identity == adapters[0].ref.digest:
        return identity or "-"
    return f"{identity} of={','.join(f'{one.ref.digest}*{one.scale:.7g}' for one in adapters)}"
