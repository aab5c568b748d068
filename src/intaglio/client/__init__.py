"""Asking a running server over HTTP: what `intaglio adapters` and `intaglio train --publish` are made of.

Knows the wire and nothing behind it: no engine, no tensors, no tables on a terminal.
"""

from __future__ import annotations

from intaglio.client.connection import Connection
from intaglio.client.finetunes import ADAPTER_FILES, Finetunes
from intaglio.client.publish import check_publishable, publish

__all__ = ["ADAPTER_FILES", "Connection", "Finetunes", "check_publishable", "publish"]
