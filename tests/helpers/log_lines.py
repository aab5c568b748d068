"""The lines of a logger in a queue, for tests that wait for one."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_lines(name: str, containing: str = "") -> Iterator[queue.Queue[str]]:
    """The lines of one logger, of level INFO or higher, that contain a text."""
    lines: queue.Queue[str] = queue.Queue()

    class QueueHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if containing in record.getMessage():
                lines.put(record.getMessage())

    logger, handler = logging.getLogger(name), QueueHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
