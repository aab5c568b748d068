"""What a logger of ours writes, as it comes, for tests that wait for it."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_lines(name: str, containing: str = "") -> Iterator[queue.Queue[str]]:
    """The lines of one logger from level INFO on that have a text in them."""
    lines: queue.Queue[str] = queue.Queue()

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if containing in record.getMessage():
                lines.put(record.getMessage())

    logger, keeper = logging.getLogger(name), Keeper()
    level = logger.level
    logger.addHandler(keeper)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(keeper)
        logger.setLevel(level)
