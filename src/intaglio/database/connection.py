"""A connection to PostgreSQL with a timeout on every response.

A database can be reachable and not respond: its disk hangs, another session locks a table, the network drops its
responses. The server's own timeouts do not apply then, and the waiting thread would never return.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

_Result = TypeVar("_Result")

RESPONSE_TIMEOUT_S = 15.0  # longer than the lock timeout of a writer, which the database ends itself


class ConnectionWithTimeout(psycopg.Connection[Any]):
    """Raises OperationalError when nothing arrives for RESPONSE_TIMEOUT_S, and is closed then."""

    def wait(self, gen: Generator[Any, Any, _Result], *arguments: Any, **options: Any) -> _Result:
        return super().wait(self._with_timeout(gen), *arguments, **options)

    def _with_timeout(self, steps: Generator[Any, Any, _Result]) -> Generator[Any, Any, _Result]:
        """The steps with a timeout. psycopg resumes them several times a second, with 0 when no data has arrived."""
        last_data_at, ready = time.monotonic(), None
        while True:
            try:
                awaited = steps.send(ready)
            except StopIteration as end:
                result: _Result = end.value
                return result
            ready = yield awaited
            if ready:
                last_data_at = time.monotonic()
            elif time.monotonic() - last_data_at > RESPONSE_TIMEOUT_S:
                self.close()
                raise psycopg.OperationalError(f"no response within {RESPONSE_TIMEOUT_S:g} s")
