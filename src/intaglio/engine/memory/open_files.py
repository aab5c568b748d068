"""How many files the engine process may hold open at once: as many as it is allowed to.

Adapters are mapped, and before Python 3.13 each map holds a descriptor (`model/array_file.py`). Systems give a process
1,024 unless it asks for more, which is for programs that still use select(); nothing here does.
"""

from __future__ import annotations

import logging
import resource
import sys

from intaglio.model.array_file import DESCRIPTORS_LEFT

logger = logging.getLogger(__name__)

_SMALL_ADAPTER_BYTES = 700_000  # rank 8 on q and v of a 270M, in float16
_MOST_WITHOUT_LIMIT = 10_240  # what macOS takes where it says that there is no limit


def allow_open_files(adapter_cache_bytes: int) -> int:
    """Raise this process's limit as far as it may; say so if adapters that fit into the cache could be more.

    Returns the limit. With too few, adapters are read into memory instead, which takes longer and shares no pages.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_WITHOUT_LIMIT if most == resource.RLIM_INFINITY else most
    if limit != resource.RLIM_INFINITY and limit < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            limit = wanted
        except (OSError, ValueError) as error:
            logger.info("the limit of %d open files stays: %s", limit, error)
    adapters = adapter_cache_bytes // _SMALL_ADAPTER_BYTES
    if sys.version_info < (3, 13) and limit != resource.RLIM_INFINITY and limit - DESCRIPTORS_LEFT < adapters:
        logger.warning(
            "this process may open %d files, and adapter_cache_bytes holds about %d small adapters: the last of them "
            "are read instead of mapped. Raise the hard limit (ulimit -Hn, LimitNOFILE) to map them all",
            limit,
            adapters,
        )
    return limit
