"""Responses whose conversations can be continued: stored in a database, with a limit in time and one in size.

Knows accounts, ids and bytes; what is in a response or a conversation is JSON that this package does not parse.

    store     stores, finds and deletes responses, and removes those beyond the limits
    tables    their table; `revisions` has its migrations
"""

from __future__ import annotations

from intaglio.conversations.store import ResponseLimits, ResponseStore, StoredResponse

__all__ = ["ResponseLimits", "ResponseStore", "StoredResponse"]
