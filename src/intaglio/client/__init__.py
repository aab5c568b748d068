"""A client of a running server over HTTP, used by `intaglio adapters` and `intaglio train --publish`.

Knows the HTTP API only: no engine, no tensors, no terminal.
"""

from __future__ import annotations

from intaglio.client.connection import Connection
from intaglio.client.finetunes import ADAPTER_FILES, Finetunes
from intaglio.client.publish import check_publishable, publish

__all__ = ["ADAPTER_FILES", "Connection", "Finetunes", "check_publishable", "publish"]
