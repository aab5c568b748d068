"""The array operations: what each one computes, in which shapes. There are two backends: `reference/` is NumPy in
float32, written to be checked by hand; `cpu/` is C++ and must agree with it. Does not know models or requests.

`model/` and `engine/` use arrays through an `Ops` object only, so another kind of device needs only another backend.
Arrays are opaque to them: they pass them on, index rows and read `.shape`.

Shapes: `tokens` counts the rows of one forward, of all sequences together, without padding. float32 unless stated.
The types of arguments and results are in arrays, adapters, attention and sampling_rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from intaglio.ops.adapters import (
    MODEL,
    AdapterProjection,
    AdapterTensors,
    LoraPair,
    LoraSegment,
    ModuleKey,
    TokenRows,
)
from intaglio.ops.arrays import (
    GROUP,
    AdapterWeights,
    Array,
    AttentionPlan,
    Distributions,
    Format,
    KVFormat,
    LoraPlan,
    QuantizedFormat,
    QuantizedMatrix,
    Weight,
)
from intaglio.ops.attention import AttentionKind, AttentionRow, KVGroup, QKNorms, RopeKind
from intaglio.ops.sampling_rows import LogprobsQuery, LogprobsRow, SamplingRow

__all__ = [
    "GROUP",
    "MODEL",
    "AdapterProjection",
    "AdapterTensors",
    "AdapterWeights",
    "Array",
    "AttentionKind",
    "AttentionPlan",
    "AttentionRow",
    "Distributions",
    "Format",
    "KVFormat",
    "KVGroup",
    "LogprobsQuery",
    "LogprobsRow",
    "LoraPair",
    "LoraPlan",
    "LoraSegment",
    "ModuleKey",
    "Ops",
    "QKNorms",
    "QuantizedFormat",
    "QuantizedMatrix",
    "RopeKind",
    "SamplingRow",
    "TokenRows",
    "Weight",
]


class Ops(Protocol):
    """The operations of a Gemma forward."""

    @property
    def name(self) -> str:
        """Names the backend, and everything else that the last bits of its results depend on."""

    @property
    def layout(self) -> str:
        """Names the layout of packed weights; arrays of one layout are read by every backend with the same name."""

    # -- preparing data -----------------------------------------------------------------------------------------------

    def integers(self, values: Sequence[int]) -> Array:
        """[n] int32 from integers."""

    def vector(self, values: Array, add: float = 0.0) -> Array:
        """[n] float32 copy of a host vector plus a constant (safetensors files store norm weights without their +1)."""

    def weight(self, matrix: Array, fmt: Format) -> Weight:
        """Prepare a host matrix [out, in] float32 or bfloat16 for `linears`, `embedding` and `logits`."""

    def quantized_weight(self, matrix: QuantizedMatrix) -> Weight:
        """Prepare a quantized matrix for the same operations."""

    def packed_arrays(self, weight: Weight) -> dict[str, Array]:
        """The host arrays of a quantized weight, to be stored for the next start."""

    def packed_weight(self, fmt: QuantizedFormat, shape: tuple[int, int], arrays: dict[str, Array]) -> Weight:
        """The inverse of `packed_arrays`; the arrays are used in place."""

    def adapter_weights(self, projections: Sequence[AdapterProjection]) -> AdapterWeights:
        """Prepare one adapter: its changes to each projection of a forward, in their order. Arrays may be
        copied. For a pair with a magnitude (DoRA) the norms are computed here, which takes longer.
        """

    def lora_arrays(self, weights: AdapterWeights) -> dict[str, Array]:
        """The host arrays of a prepared adapter, to be stored on disk."""

    def lora_from_arrays(self, arrays: Mapping[str, Array], projections: Sequence[Sequence[Weight]]) -> AdapterWeights:
        """The inverse of `lora_arrays`; the arrays may be used in place.

        projections  the base's matrices of each projection
        Raises ValueError if they do not fit.
        """

    def preallocate_adapter_memory(self) -> None:
        """Allocate memory for the next adapter in advance, so that loading it does not wait. Called when idle."""

    def lora_plan(self, segments: Sequence[LoraSegment]) -> LoraPlan:
        """Prepare which rows have which adapter; made once per step and used by every projection."""

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> AttentionPlan:
        """Prepare where the attention of one step reads and writes; made once, used by every layer of a KV
        group. The rows of the sequences are contiguous and cover all tokens of the step.
        """

    def new_kv(
        self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int, fmt: KVFormat = "f32"
    ) -> KVGroup:
        """An empty cache. Its memory is touched only as blocks are written."""

    def copy_kv_block(self, cache: KVGroup, source: int, target: int) -> None:
        """Make block `target` the same as block `source` in every layer, bit for bit. Changes the cache in place."""

    # -- the forward, in the order of the model ------------------------------------------------------------------------
    #
    # plan, projection: the adapters of the rows, and the projection's index in `adapter_weights`. A projection is a
    # fused matrix product with the norms after it, or a lookup. If an adapter replaces a norm or a table, its rows use
    # the replacement.

    def embedding(
        self, table: Weight, ids: Array, scale: float, plan: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        """Rows of the table times scale. ids [tokens] int32 -> [tokens, hidden]."""

    def rms_norm(self, x: Array, weight: Array, eps: float, plan: LoraPlan | None = None, projection: int = 0) -> Array:
        """x / sqrt(mean(x²) + eps) · weight over the last axis; weight already includes Gemma's +1."""

    def linears(
        self, x: Array, weights: Sequence[Weight], plan: LoraPlan | None = None, projection: int = 0
    ) -> tuple[Array, ...]:
        """x · Wᵀ for each W, with the change that `LoraPair` describes on the rows of each segment. x [tokens, in] ->
        one [tokens, out] per W.

        Matrices that read the same x come in one call (q, k, v; gate, up), so that a backend can read x once.
        Source: the segmented gather of Punica (arXiv 2310.18547), without its rank padding.
        """

    def self_attention(
        self,
        x: Array,
        qkv: Sequence[Weight],
        kind: AttentionKind,
        cache: KVGroup,
        layer: int,
        plan: AttentionPlan,
        adapters: LoraPlan | None = None,
        projection: int = 0,
    ) -> Array:
        """The attention half of a block, without its last projection. x [tokens, hidden] -> [tokens, heads · head_dim].

        1. q, k, v by `linears` with the three matrices; heads of q and k normed, if the kind has norms.
        2. q and k rotated: pairs (i, i + dim/2) by position / factor · theta^(-2i/dim). Source: RoFormer
           (arXiv 2104.09864), in half-split order.
        3. k and v go into the cache, where the plan's block tables have their positions; rounded to the cache's type,
           to nearest with ties to even. int8: to 127ths of the largest magnitude of each 32 numbers of a key, and of
           all numbers of a value, head by head.
        4. Causal attention of each sequence's rows over its own cached keys. Query p sees key j when j <= p and, with a
           window W, j > p - W. Scores are q·k · scale, then softcap if given, then mask and softmax. Heads share keys
           in groups of heads / kv_heads.
        """

    def gated_linear(
        self, x: Array, gate: Weight, up: Weight, plan: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        """gelu(g) · u, where g and u are results of `linears` with the two matrices. x [tokens, in] -> [tokens, out].

        gelu(x) = x/2 · (1 + tanh(sqrt(2/pi) · (x + 0.044715 x³))). Source: GLU variants (arXiv 2002.05202).
        """

    def add_projection(
        self,
        x: Array,
        y: Array,
        weight: Weight,
        post: Array | None,
        norm: Array,
        eps: float,
        adapters: LoraPlan | None = None,
        projection: int = 0,
    ) -> tuple[Array, Array]:
        """The end of either half of a block: (s, rms_norm(s, norm)), where s = x + rms_norm(p, post), or x + p if post
        is None, and p is the result of `linears` with y and the matrix. x [tokens, hidden], y [tokens, in].
        """

    def take_rows(self, x: Array, rows: Array) -> Array:
        """x[rows], rows [n] int32."""

    def logits(
        self, x: Array, table: Weight, softcap: float | None, plan: LoraPlan | None = None, projection: int = 0
    ) -> Array:
        """x · tableᵀ, softcapped if given. [rows, hidden] -> [rows, vocab]."""

    # -- sampling, in the order of use --------------------------------------------------------------------------

    def distributions(self, logits: Array, rows: Sequence[int], vocab_size: int) -> Distributions:
        """The softmax of these rows of logits [rows, vocab] over the ids below vocab_size. Keeps no view of the logits,
        which sampling changes.
        """

    def logprobs(self, distributions: Distributions, queries: Sequence[LogprobsQuery]) -> list[LogprobsRow]:
        """One report per row that `distributions` was given, in that order. Tokens of probability 0 are left out."""

    def mask_tokens(self, logits: Array, row: int, allowed: bytes) -> None:
        """Set the logits of one row to -inf, in place, for tokens that are not allowed. Token i is allowed if bit i % 8
        of byte i // 8 is set, the lowest bit first. Ids past the end of the mask are not allowed.
        """

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        """One token id below vocab_size per row of logits [rows, vocab]. Each row's choice depends on that row alone.

        Order: bias, repetition, frequency, presence, temperature, min_p, top_k, top_p, draw. A row whose best logit is
        not finite gives -1. The logits may be overwritten.
        """
