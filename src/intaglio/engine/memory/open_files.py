"""Raises the engine process's limit of open files to the highest value it is allowed.

Adapters are mapped, and before Python 3.13 each map holds a descriptor (`model/array_file.py`). The usual limit is
1,024 unless a process raises it, because select() cannot handle more; nothing here uses select().
"""

from __future__ import annotations

import logging
import resource
import sys

from intaglio.model.array_file import RESERVED_DESCRIPTORS

logger = logging.getLogger(__name__)

_SMALL_ADAPTER_BYTES = 700_000  # rank 8 on q and v of a 270M, in float16
_MAX_IF_UNLIMITED = 10_240  # what macOS accepts if its hard limit is infinite


def raise_open_file_limit(adapter_cache_bytes: int) -> int:
    """Raise the limit to the hard limit; log a warning if the adapter cache may hold more adapters than that.

    Returns the limit. With too few, adapters are read into memory instead, which takes longer and shares no pages.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_IF_UNLIMITED if most == resource.RLIM_INFINITY else most
    if limit != resource.RLIM_INFINITY and limit < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            limit = wanted
        except (OSError, ValueError) as error:
            logger.info("the limit of %d open files stays: %s", limit, error)
    adapters = adapter_cache_bytes // _SMALL_ADAPTER_BYTES
    if sys.version_info < (3, 13) and limit != resource.RLIM_INFINITY and limit - RESERVED_DESCRIPTORS < adapters:
        logger.warning(
            "this process may open %d files, and adapter_cache_bytes holds about %d small adapters: the last of them "
            "are read instead of mapped. Raise the hard limit (ulimit -Hn, LimitNOFILE) to map them all",
            limit,
            adapters,
        )
    return limit
