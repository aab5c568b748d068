"""The array operations: what each one computes, in which shapes. The bodies stand beside: `reference.py` is NumPy,
float32, written to be checked by hand; a faster body has to agree with it.

`model/` and `engine/` reach arrays through an `Ops` object only, so a second kind of device is a second body and
nothing else. Arrays are opaque to them: they pass them on, index rows and read `.shape`.

Shapes: `tokens` counts the rows of one forward, of all sequences together, without padding. float32 unless stated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

Array: TypeAlias = Any  # an array of the body's own kind: numpy.ndarray for the CPU bodies
Weight: TypeAlias = Any  # a matrix in whatever layout the body prepared it; only the body looks inside
LoraWeights: TypeAlias = Any  # one adapter's matrices, as the body prepared them
LoraPlan: TypeAlias = Any  # which rows of one step have which adapter, as the body prepared it
Distributions: TypeAlias = Any  # what the model itself makes of the next token of some rows, as the body keeps it
AttentionPlan: TypeAlias = Any  # what one step's attention looks at, as the body prepared it
Format: TypeAlias = Literal["f32", "bf16"]
QuantizedFormat: TypeAlias = Literal["w8", "w5", "w4"]

GROUP = 32  # inputs that share one scale in a quantized matrix

ModuleKey: TypeAlias = tuple[int, str]  # (layer index, "self_attn.q_proj"), or (MODEL, "lm_head")
MODEL = -1  # in place of a layer index: embed_tokens, lm_head and norm belong to the model as a whole


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One adapter's matrices for one matrix W of the base: y = g ⊙ (x · Wᵀ + scale · (x · aᵀ) · bᵀ + bias).

    a          [rank, in_features] float32, or float16 or int8 where an adapter is kept small in memory
    b          [out_features, rank], of the same type; the adapter's own scaling is folded in
    scale      what the pair's values were divided by to fit the smaller type: one number, or [rank] float32
    bias       [out_features] float32, the adapter's scaling folded in; None is 0
    magnitude  [out_features] float32, DoRA's m: g = m / |rows of W + scale · b · a|. None: g is 1.
               Source: DoRA (arXiv 2402.09353)

    Of the embedding table a is [rank, vocab] and b [hidden, rank], as PEFT has them: token t gets
    E[t] + scale · a[:, t]ᵀ · bᵀ. Its magnitude is [hidden], and g too: PEFT takes the lengths of the columns of the
    changed table, over all tokens, g = m / |columns of E + scale · (b · a)ᵀ|. There is no bias.
    """

    a: Array
    b: Array
    scale: float | Array = 1.0
    bias: Array | None = None
    magnitude: Array | None = None

    @property
    def nbytes(self) -> int:
        vectors = (vector for vector in (self.bias, self.magnitude) if vector is not None)
        return int(self.a.nbytes) + int(self.b.nbytes) + sum(int(vector.nbytes) for vector in vectors)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of a table [vocab, hidden] that take the place of the base's: ids [n] int32, ascending, each once; rows
    [n, hidden] float32.
    """

    ids: Array
    rows: Array

    @property
    def nbytes(self) -> int:
        return int(self.ids.nbytes) + int(self.rows.nbytes)


@dataclass(frozen=True, slots=True)
class AdapterTensors:
    """All that one adapter changes of a base, as it comes from its files.

    pairs   module -> matrices beside the module's own; keys are projections of a layer, (MODEL, "embed_tokens") and
            (MODEL, "lm_head"), which are apart even where the base has one table for both
    norms   module -> [n] float32 in place of the module's weights, Gemma's +1 added: (3, "input_layernorm"),
            (3, "self_attn.q_norm"), (MODEL, "norm")
    tables  "embed_tokens" or "lm_head" -> [vocab, hidden] float32 in place of the whole table on that path
    rows    the same -> single rows in place of the table's
    """

    pairs: Mapping[ModuleKey, LoraPair]
    norms: Mapping[ModuleKey, Array] = field(default_factory=dict)
    tables: Mapping[str, Array] = field(default_factory=dict)
    rows: Mapping[str, TokenRows] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        parts = (self.pairs, self.norms, self.tables, self.rows)
        return sum(int(tensor.nbytes) for part in parts for tensor in part.values())

    @property
    def is_sum(self) -> bool:
        """Whether it only adds to what the base gives, so that it can be scaled and added to others."""
        return not (self.norms or self.tables or self.rows) and all(p.magnitude is None for p in self.pairs.values())


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix [out, in] as whole numbers with one scale per 32 inputs of a row.

    w8  value = scale · q            values int8 [out, in]
    w5  value = scale · q - minimum  values uint8 [out, in], 0 ... 31; scale · (q - 16) where minima are None
    w4  value = scale · q - minimum  values uint8 [out, in], 0 ... 15; scale · (q - 8) where minima are None
    scales, minima  [out, groups] float16, groups = in / 32 rounded up; minima are None for w8
    """

    fmt: QuantizedFormat
    values: Array
    scales: Array
    minima: Array | None = None

    @property
    def centre(self) -> int:
        """What is taken off each number before it is scaled."""
        return {"w8": 0, "w5": 16, "w4": 8}[self.fmt] if self.minima is None else 0

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self.values.shape[0]), int(self.values.shape[1]))


class AdapterCall(NamedTuple):
    """What one adapter changes in one call of a forward.

    weights  the matrices of the base that the call multiplies with, or the table that it looks up
    pairs    one per matrix; None where the adapter leaves it alone
    norms    what takes the place of the norm weights that the call is given, in their order; None for the base's
    table    what takes the place of the call's table
    rows     what takes the place of single rows of it
    """

    weights: Sequence[Weight]
    pairs: Sequence[LoraPair | None]
    norms: Sequence[Array | None] = ()
    table: Weight | None = None
    rows: TokenRows | None = None


class LoraSegment(NamedTuple):
    """A run of rows with one adapter. Rows outside every segment belong to the base model.

    Segments may lie over each other: such rows get the sum of what the adapters add, in the order of the segments.

    weights  the adapter, from `Ops.lora_weights`
    scale    what the adapter adds is multiplied with; 1 where it is not a sum (`AdapterTensors.is_sum`)
    """

    start: int
    stop: int
    weights: LoraWeights
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class KVGroup:
    """Keys and values of the layers that share one set of block tables.

    keys, values  [layers of the group, num_blocks, block_size, num_kv_heads, head_dim]
    """

    keys: Array
    values: Array


class AttentionRow(NamedTuple):
    """One sequence's part of a forward.

    start, stop   its rows in the batch: its last tokens, one behind the other
    context       tokens in the cache once this forward has written its own: position of the last row + 1
    first_key     the first position that the block table still holds (older ones fell out of the window); a multiple of
                  the block size
    block_table   the blocks of positions first_key ... context - 1
    """

    start: int
    stop: int
    context: int
    first_key: int
    block_table: Sequence[int]


class SamplingRow(NamedTuple):
    """How to choose the next token of one row; fields and their order as in `request.SamplingParams`.

    prompt_ids, output_ids  the tokens so far, for the penalties; may be empty when no penalty is set
    position                the number of output tokens so far: with seed the key of the random draw
    logit_bias              (id, what is added to its logit)
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
    logit_bias: Sequence[tuple[int, float]] = ()


@dataclass(frozen=True, slots=True)
class LogprobsQuery:
    """What to report of one row's distribution: the log-probability of `chosen`, and the `num_best` best tokens."""

    chosen: int
    num_best: int


@dataclass(frozen=True, slots=True)
class LogprobsRow:
    """Natural logarithms; best [(id, logprob)], best first, of equals the lower id first."""

    chosen: float
    best: list[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class RopeKind:
    """The rotary embedding of one kind of layer; factor divides the positions."""

    theta: float
    factor: float


@dataclass(frozen=True, slots=True)
class QKNorms:
    """Gemma 3 norms each head of q and k; weights [head_dim] with their +1."""

    q: Array
    k: Array
    eps: float


@dataclass(frozen=True, slots=True)
class AttentionKind:
    """What the attention of a layer is, beside its matrices.

    scale    what scores are multiplied with
    window   a query sees this many of the last keys, its own among them; None sees all
    softcap  cap of cap · tanh(score / cap); None is none
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: RopeKind
    norms: QKNorms | None
    scale: float
    window: int | None
    softcap: float | None


class Ops(Protocol):
    """The operations of a Gemma forward."""

    @property
    def name(self) -> str:
        """Names the body, and what else its results depend on in their last bits."""

    @property
    def layout(self) -> str:
        """Names the layout of packed weights; arrays of one layout are read by every body with the same name."""

    # -- bringing data in ---------------------------------------------------------------------------------------------

    def integers(self, values: Sequence[int]) -> Array:
        """[n] int32 from whole numbers."""

    def vector(self, values: Array, add: float = 0.0) -> Array:
        """[n] float32 copy of a host vector, plus a constant (norm weights of safetensors files lack their +1)."""

    def weight(self, matrix: Array, fmt: Format) -> Weight:
        """Prepare a host matrix [out, in] float32 or bfloat16 for `linears`, `embedding` and `logits`."""

    def quantized_weight(self, matrix: QuantizedMatrix) -> Weight:
        """The same for a quantized matrix."""

    def packed_arrays(self, weight: Weight) -> dict[str, Array]:
        """The host arrays behind a quantized weight, to be kept for the next start."""

    def packed_weight(self, fmt: QuantizedFormat, shape: tuple[int, int], arrays: dict[str, Array]) -> Weight:
        """The weight that `packed_arrays` was asked of, from its arrays; they are used in place."""

    def lora_weights(self, calls: Sequence[AdapterCall]) -> LoraWeights:
        """Prepare one adapter: what it changes in each call of a forward, in the order of the calls. Arrays may be
        copied. Of a pair with a magnitude the norms are taken here, so it takes longer.
        """

    def lora_arrays(self, weights: LoraWeights) -> dict[str, Array]:
        """The host arrays behind a prepared adapter, to be kept on disk."""

    def lora_from_arrays(self, arrays: Mapping[str, Array], calls: Sequence[Sequence[Weight]]) -> LoraWeights:
        """The adapter that `lora_arrays` was asked of; the arrays may be used in place.

        calls  the base's matrices of each call
        Raises ValueError if they do not fit.
        """

    def rest(self) -> None:
        """Called when there is nothing to compute: do ahead what the next adapter would have to wait for."""

    def lora_plan(self, segments: Sequence[LoraSegment]) -> LoraPlan:
        """Prepare which rows have which adapter; made once per step and used by every call of `linears`."""

    def attention_plan(self, rows: Sequence[AttentionRow], block_size: int) -> AttentionPlan:
        """Prepare what the attention calls of one step look at and where they write; made once, used by every layer of
        a KV group. The rows of the sequences follow each other and are all the tokens of the step.
        """

    def new_kv(self, layers: int, num_blocks: int, block_size: int, kv_heads: int, head_dim: int) -> KVGroup:
        """An empty cache. Its memory is touched only as blocks are written."""

    # -- the forward, in the order of the model

    #
    # plan, call: the adapters of the rows, and the index of the call in `lora_weights`. Where an adapter replaces a
    # norm or a table, its rows meet that one.

    def embedding(self, table: Weight, ids: Array, scale: float, plan: LoraPlan | None = None, call: int = 0) -> Array:
        """Rows of the table times scale. ids [tokens] int32 -> [tokens, hidden]."""

    def rms_norm(self, x: Array, weight: Array, eps: float, plan: LoraPlan | None = None, call: int = 0) -> Array:
        """x / sqrt(mean(x²) + eps) · weight over the last axis; weight already holds Gemma's +1."""

    def linears(
        self, x: Array, weights: Sequence[Weight], plan: LoraPlan | None = None, call: int = 0
    ) -> tuple[Array, ...]:
        """x · Wᵀ for each W, and on the rows of each segment what `LoraPair` says. x [tokens, in] -> one [tokens, out]
        per W.

        Matrices that read the same x come in one call (q, k, v; gate, up), so that a body can read x once.
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
        call: int = 0,
    ) -> Array:
        """The attention half of a block, but for its last projection. x [tokens, hidden] -> [tokens, heads · head_dim].

        1. q, k, v as `linears` gives them for the three matrices; heads of q and k normed, if the kind says so.
        2. q and k rotated: pairs (i, i + dim/2) by position / factor · theta^(-2i/dim). Source: RoFormer
           (arXiv 2104.09864), in half-split order.
        3. k and v go into the cache, where the plan's block tables have their positions.
        4. Causal attention of each sequence's rows over its own cached keys. Query p sees key j when j <= p and, with a
           window W, j > p - W. Scores are q·k · scale, then softcap if given, then mask and softmax. Heads share keys
           in groups of heads / kv_heads.
        """

    def gated_linear(self, x: Array, gate: Weight, up: Weight, plan: LoraPlan | None = None, call: int = 0) -> Array:
        """gelu(g) · u, where g and u are what `linears` gives for the two matrices. x [tokens, in] -> [tokens, out].

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
        call: int = 0,
    ) -> tuple[Array, Array]:
        """The end of either half of a block: (s, rms_norm(s, norm)), where s = x + rms_norm(p, post), or x + p if post
        is None, and p is what `linears` gives for y and the matrix. x [tokens, hidden], y [tokens, in].
        """

    def take_rows(self, x: Array, rows: Array) -> Array:
        """x[rows], rows [n] int32."""

    def logits(
        self, x: Array, table: Weight, softcap: float | None, plan: LoraPlan | None = None, call: int = 0
    ) -> Array:
        """x · tableᵀ, softcapped if given. [rows, hidden] -> [rows, vocab]."""

    # -- choosing tokens, in the order of the calls

    def distributions(self, logits: Array, rows: Sequence[int], vocab_size: int) -> Distributions:
        """The softmax of these rows of logits [rows, vocab] over the ids below vocab_size, before anything changes
        them. Copies what it needs.
        """

    def logprobs(self, distributions: Distributions, queries: Sequence[LogprobsQuery]) -> list[LogprobsRow]:
        """One report per row that `distributions` was given, in that order. Tokens of probability 0 are left out."""

    def mask_tokens(self, logits: Array, row: int, allowed: bytes) -> None:
        """Set the logits of one row to -inf where token i is not allowed, in place: bit i % 8 of byte i // 8, the
        lowest bit first. Ids past the end of the mask are not allowed.
        """

    def sample(self, logits: Array, rows: Sequence[SamplingRow], vocab_size: int) -> list[int]:
        """One token id below vocab_size per row of logits [rows, vocab]. Each row's choice depends on that row alone.

        Order: bias, repetition, frequency, presence, temperature, top_k, top_p, draw. A row whose best logit is not
        finite gives -1. The logits may be overwritten.
        """
