"""A client of a running server over HTTP, used by `intaglio adapters` and `intaglio train --publish`.

Uses the HTTP API only; does not know the engine, tensors or the terminal.
"""

from __future__ import annotations

from intaglio.client.connection import Connection
from intaglio.client.finetunes import ADAPTER_FILES, Finetunes
from intaglio.client.publish import check_publishable, publish

__all__ = ["ADAPTER_FILES", "Connection", "Finetunes", "check_publishable", "publish"]
