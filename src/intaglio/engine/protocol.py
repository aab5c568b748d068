"""The messages between the API process and the engine process: msgpack over one ZeroMQ pair of sockets.

    to the engine     Submit, Abort, Verify, ReadStatus, Shutdown
    from the engine   Loading (while weights are quantized), Ready (once, or Failed), Outputs (after steps with any),
                      VerificationResult (for each Verify), StatusReport (for each ReadStatus, between two steps)

The engine's spec goes to its standard input, which then stays open: when it closes, the API process is gone and the
engine ends too.
"""

from __future__ import annotations

import msgspec

from intaglio.engine.engine import EngineLimits
from intaglio.lora.packing import AdapterDtype
from intaglio.request import EngineRequest, TokenOutput, VerifiedAdapter
from intaglio.settings import Kernels, WeightFormat
from intaglio.status import EngineStatus


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything an engine process needs to start; fields as in `Settings` where they have the same name."""

    model_path: str
    packed_dir: str
    format: WeightFormat
    kernels: Kernels
    threads: int | None
    context_window: int | None
    limits: EngineLimits
    stop_ids: list[int]
    vocab_size: int
    adapter_dtype: AdapterDtype
    adapter_cache_bytes: int
    max_adapter_rank: int
    max_adapter_file_bytes: int
    log_level: str
    token_table: str | None = None  # file of a `request.TokenTable`; without one no grammar can be enforced


class Submit(msgspec.Struct, frozen=True, tag=True):
    """Requests that begin in the same step, if there is room for them."""

    requests: list[EngineRequest]


class Abort(msgspec.Struct, frozen=True, tag=True):
    request_id: str


class Verify(msgspec.Struct, frozen=True, tag=True):
    """Read, check and verify the adapter in a folder. Several may be queued; each gets a `VerificationResult`.

    digest  what the adapter must have; None for an upload, whose digest is not known before it is read
    """

    request_id: str
    folder: str
    digest: str | None = None


class ReadStatus(msgspec.Struct, frozen=True, tag=True):
    """Each gets a `StatusReport`."""

    request_id: str


class Shutdown(msgspec.Struct, frozen=True, tag=True):
    """End now; running requests are not waited for."""


class Loading(msgspec.Struct, frozen=True, tag=True):
    """Bytes of the checkpoint's weights that are quantized so far, and the total. Not sent if they are cached."""

    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded. max_sequence_tokens: prompt and completion together, at most."""

    max_sequence_tokens: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The engine cannot start; the reason is for the operator."""

    reason: str


class VerificationResult(msgspec.Struct, frozen=True, tag=True):
    """The result of a `Verify`: exactly one of the three.

    refused  what is wrong with the adapter
    failed   why verification could not be done
    """

    request_id: str
    verified: VerifiedAdapter | None = None
    refused: str | None = None
    failed: str | None = None


class StatusReport(msgspec.Struct, frozen=True, tag=True):
    request_id: str
    status: EngineStatus


class Outputs(msgspec.Struct, frozen=True, tag=True):
    outputs: list[TokenOutput]


ToEngine = Submit | Abort | Verify | ReadStatus | Shutdown
FromEngine = Loading | Ready | Failed | Outputs | VerificationResult | StatusReport
