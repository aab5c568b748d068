"""A client of a running server over HTTP, used by `intaglio adapters`, `chat`, `run` and `train --publish`.

Uses the HTTP API only; does not know the engine, tensors or the terminal.
"""

from __future__ import annotations

from intaglio.client.completions import Piece, stream_completion
from intaglio.client.connection import Connection
from intaglio.client.finetunes import ADAPTER_FILES, Finetunes
from intaglio.client.publish import check_publishable, publish

__all__ = ["ADAPTER_FILES", "Connection", "Finetunes", "Piece", "check_publishable", "publish", "stream_completion"]
