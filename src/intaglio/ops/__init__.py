"""The array operations: what each one computes, in which shapes. The bodies stand beside: `reference.py` is NumPy,
float32, written to be checked by hand; a faster body has to agree with it.

`model/` and `engine/` reach arrays through an `Ops` object only, so a second kind of device is a second body and
nothing else. Arrays are opaque to them: they pass them on, index rows and read `.shape`.

Shapes: `tokens` counts the rows of one forward, of all sequences together, without padding. float32 unless stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

Array: TypeAlias = Any  # an array of the body's own kind: numpy.ndarray for the CPU bodies
Weight: TypeAlias = Any  # a matrix in whatever layout the body prepared it; only the body looks inside
Format: TypeAlias = Literal["f32", "bf16"]


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One adapter's matrices for one projection: y += (x · aᵀ) · bᵀ, with the scaling already folded into b.

    a  [rank, in_features] float32
    b  [out_features, rank] float32
    """

    a: Array
    b: Array

    @property
    def nbytes(self) -> int:
        return int(self.a.nbytes) + int(self.b.nbytes)


@dataclass(frozen=True, slots=True)
class LoraSegment:
    """A run of rows with one adapter. Rows outside every segment belong to the base model.

    pairs  one entry per matrix of the `linears` call, None where the adapter leaves that matrix alone
    """

    start: int
    stop: int
    pairs: tuple[LoraPair | None, ...]


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Keys and values of the layers that share one set of block tables.

    keys, values  [layers of the group, num_blocks, block_size, num_kv_heads, head_dim]
    """

    keys: Array
    values: Array


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One sequence's part of a forward.

    start, stop   its rows in the batch
    context       tokens in the cache once this forward has written its own: position of the last row + 1
    first_key     the first position that the block table still holds (older ones fell out of the window); a multiple of
                  the block size
    block_table   [blocks] int32, the blocks of positions first_key ... context - 1
    """

    start: int
    stop: int
    context: int
    first_key: int
    block_table: Array


@dataclass(frozen=True, slots=True)
class SamplingRow:
    """How to choose the next token of one row; fields and their order as in `request.SamplingParams`.

    prompt_ids, output_ids  the tokens so far, for the penalties; may be empty when no penalty is set
    position                the number of output tokens so far: with seed the key of the random draw
    """

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    position: int
    prompt_ids: Sequence[int]
    output_ids: Sequence[int]


class Ops(Protocol):
    """The operations of a Gemma forward. Nothing here changes an argument, but `write_kv` and `swap`-like cache
    writes.
    """

    # -- bringing data in ---------------------------------------------------------------------------------------------

    def integers(self, values: Sequence[int]) -> Array:
        """[n] int32 from whole numbers."""

    def vector(self, values: Array, add: float = 0.0) -> Array:
        """[n] float32 copy of a host vector, plus a constant (norm weights of safetensors files lack their +1)."""

    def weight(self, matrix: Array, fmt: Format) -> Weight:
        """Prepare a host matrix [out, in] float32 or bfloat16 for `linears`, `embedding` and `logits`."""

    def new_kv(self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int) -> KVGroup:
        """An empty cache. Its memory is touched only as blocks are written."""

    # -- the forward, in the order of the model
    # --------------------------------------------------------------------------

    def embedding(self, table: Weight, ids: Array, scale: float) -> Array:
        """Rows of the table times scale. ids [tokens] int32 -> [tokens, hidden]."""

    def rms_norm(self, x: Array, weight: Array, eps: float) -> Array:
        """x / sqrt(mean(x²) + eps) · weight over the last axis; weight already holds Gemma's +1."""

    def linears(self, x: Array, weights: Sequence[Weight], segments: Sequence[LoraSegment]) -> tuple[Array, ...]:
        """x · Wᵀ for each W, plus each segment's (x · aᵀ) · bᵀ on its rows. x [tokens, in] -> one [tokens, out] per W.

        Matrices that read the same x come in one call (q, k, v; gate, up), so that a body can read x once.
        Source: the segmented gather of Punica (arXiv 2310.18547), without its rank padding.
        """

    def rope(self, x: Array, positions: Array, theta: float, factor: float) -> Array:
        """Rotate pairs (i, i + dim/2) of the last axis by position / factor · theta^(-2i/dim).

        x [tokens, heads, head_dim], positions [tokens] int32. Source: RoFormer (arXiv 2104.09864), half-split order.
        """

    def write_kv(self, cache: KVGroup, layer: int, keys: Array, values: Array, slots: Array) -> None:
        """Store k, v [tokens, kv_heads, head_dim] at slots [tokens] int32 = block · block_size + offset. In place."""

    def attention(
        self,
        q: Array,
        cache: KVGroup,
        layer: int,
        rows: Sequence[AttentionRow],
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Array:
        """Causal attention of each sequence's rows over its own cached keys. q [tokens, heads, head_dim], same out.

        Query p sees key j when j <= p and, with a window W, j > p - W. Scores are q·k · scale, then softcap
        (cap · tanh(s / cap)) if given, then mask and softmax. Heads share keys in groups of heads / kv_heads.
        """

    def gelu_gate(self, gate: Array, up: Array) -> Array:
        """gelu(gate) · up with gelu(x) = x/2 · (1 + tanh(sqrt(2/pi) · (x + 0.044715 x³)))."""

    def add(self, x: Array, y: Array) -> Array:
        """x + y."""

    def take_rows(self, x: Array, rows: Array) -> Array:
        """x[rows], rows [n] int32."""

    def logits(self, x: Array, table: Weight, softcap: float | None) -> Array:
        """x · tableᵀ, softcapped if given. [rows, hidden] -> [rows, vocab]."""

    # -- choosing tokens
    # ---------------------------------------------------------------------------------------------------

    def sample(self, logits: Array, rows: Sequence[SamplingRow]) -> list[int]:
        """One token id per row of logits [rows, vocab]. Each row's choice depends on that row alone.

        Order: repetition, frequency, presence, temperature, top_k, top_p, draw. A row that is nowhere finite gives -1.
        """
