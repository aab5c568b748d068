"""A connection to PostgreSQL that waits for its answers, though not for ever.

A database can be there and stand still: its disk hangs, somebody holds a table, the network swallows what it says. The
server's own timeouts do not run then, and a thread that waited on would be lost to everybody else.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

_Result = TypeVar("_Result")

ANSWER_S = 15.0  # longer than a writer waits for the one before, which the database ends itself


class PatientConnection(psycopg.Connection[Any]):
    """Raises OperationalError when nothing comes for ANSWER_S, and is closed then."""

    def wait(self, gen: Generator[Any, Any, _Result], *arguments: Any, **options: Any) -> _Result:
        return super().wait(self._in_time(gen), *arguments, **options)

    def _in_time(self, steps: Generator[Any, Any, _Result]) -> Generator[Any, Any, _Result]:
        """The same steps. They go on several times a second, with nothing where there is no news."""
        heard_at, news = time.monotonic(), None
        while True:
            try:
                awaited = steps.send(news)
            except StopIteration as end:
                result: _Result = end.value
                return result
            news = yield awaited
            if news:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > ANSWER_S:
                self.close()
                raise psycopg.OperationalError(f"no answer within {ANSWER_S:g} s")
