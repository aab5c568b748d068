"""Gemma 1, 2 and 3 (text): from token ids to logits, for a batch of sequences with any mix of adapters.

One file for three family versions, because they differ in a handful of places, all visible below: Gemma 2 and 3 norm
the outputs of attention and MLP before adding them, Gemma 2 caps scores and logits, Gemma 3 norms q and k, and Gemma 2
and 3 alternate layers with and without a sliding window. `ModelConfig` says which of these a layer has.

The forward knows rows and cache blocks. It does not know requests, nor what kind of arrays `ops` uses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from intaglio.model.config import LayerConfig, ModelConfig
from intaglio.model.packed import PackedFile
from intaglio.model.quantize import WeightFormat, format_of, plain_values, quantize
from intaglio.model.weights import Checkpoint, RawTensor
from intaglio.ops import (
    MODEL,
    AdapterProjection,
    AdapterTensors,
    AdapterWeights,
    Array,
    AttentionKind,
    AttentionPlan,
    KVGroup,
    LoraPair,
    LoraPlan,
    Ops,
    QKNorms,
    QuantizedFormat,
    RopeKind,
    Weight,
)

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUT = ("self_attn.o_proj",)
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
DOWN = ("mlp.down_proj",)

EMBEDDING = "embed_tokens"
HEAD = "lm_head"

# Fused projections that adapters can change, counted in the order of `forward`: one for the embedding and the norm
# after it, four for each layer, one for the head.
_PROJECTIONS_PER_LAYER = 4


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """Everything one forward needs.

    ids         [tokens] int32
    adapters    which rows have which adapter, from `Ops.lora_plan`
    attention   one plan per group of `kv_groups(config)`, from `Ops.attention_plan`
    logit_rows  [n] int32: the rows whose logits are wanted
    logit_adapters  which of the logit rows have which adapter, as indices into logit_rows
    """

    ids: Array
    adapters: LoraPlan
    attention: Sequence[AttentionPlan]
    logit_rows: Array
    logit_adapters: LoraPlan


@dataclass(frozen=True, slots=True)
class KVGroupShape:
    """Layers that cache the same positions: all, or the last `window`."""

    window: int | None
    layers: tuple[int, ...]


def kv_groups(config: ModelConfig) -> tuple[KVGroupShape, ...]:
    """The layers by window, the ones without a window first."""
    windows = sorted({layer.window for layer in config.layers}, key=lambda window: (window is not None, window or 0))
    return tuple(
        KVGroupShape(window, tuple(i for i, layer in enumerate(config.layers) if layer.window == window))
        for window in windows
    )


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One block. 1 is already added to the weights of the norms; the post norms are None in families without them."""

    input_norm: Array
    pre_mlp_norm: Array
    post_attn_norm: Array | None
    post_mlp_norm: Array | None
    attention: AttentionKind
    qkv: tuple[Weight, ...]
    out: Weight
    gate: Weight
    up: Weight
    down: Weight


class Gemma:
    """A loaded model. Stateless: the cache is an argument."""

    def __init__(
        self,
        config: ModelConfig,
        checkpoint: Checkpoint,
        ops: Ops,
        fmt: WeightFormat,
        packed: PackedFile | None = None,
        on_bytes: Callable[[int], None] = lambda num_bytes: None,
    ) -> None:
        """Read and prepare the weights; quantized matrices come from `packed` if it has them, else are added to it.

        on_bytes  called with the number of stored bytes that were quantized since its last call
        """
        self.config = config
        self._ops = ops
        read = _WeightReader(checkpoint, ops, fmt, packed, on_bytes)
        self._embedding = read.matrix("model.embed_tokens", is_table=True)
        self._head = self._embedding if config.tied_head else read.matrix("lm_head", is_table=True)
        self._final_norm = read.norm("model.norm")
        ropes = {_rope(layer): RopeKind(*_rope(layer)) for layer in config.layers}  # layers of a kind share one object
        self._layers = [
            _read_layer(read, config, index, ropes[_rope(layer)]) for index, layer in enumerate(config.layers)
        ]
        # A layer's output passes the input norm of the next layer first; after the last layer, the model's final norm.
        self._norms_after = [*(layer.input_norm for layer in self._layers[1:]), self._final_norm]
        # layer -> (its group, its index in the group's cache)
        self._kv_place = {
            layer: (group_idx, place)
            for group_idx, group in enumerate(kv_groups(config))
            for place, layer in enumerate(group.layers)
        }

    def with_ops(self, ops: Ops) -> Gemma:
        """The same weights on another backend that can read their layout."""
        other = copy.copy(self)
        other._ops = ops
        return other

    def prepare_adapter(self, tensors: AdapterTensors) -> AdapterWeights:
        """Convert an adapter to the form that `forward` needs; done once, when it is loaded."""
        tables = {name: self._ops.weight(table, "f32") for name, table in tensors.tables.items()}
        return self._ops.adapter_weights(list(self._adapter_projections(tensors, tables)))

    def adapter_weights(self) -> list[Sequence[Weight]]:
        """The matrices of each projection that an adapter can change, in the order of `forward`."""
        return [projection.weights for projection in self._adapter_projections(AdapterTensors({}), {})]

    def _adapter_projections(
        self, tensors: AdapterTensors, tables: Mapping[str, Weight]
    ) -> Iterator[AdapterProjection]:
        """The adapter's changes to each projection, in the order of `forward`."""
        pairs, norms = tensors.pairs, tensors.norms
        # As in _norms_after: a layer ends with the input norm of the next layer.
        after = [*((index, "input_layernorm") for index in range(1, self.config.num_layers)), (MODEL, "norm")]
        yield AdapterProjection(
            [self._embedding],
            [pairs.get((MODEL, EMBEDDING))],
            [norms.get((0, "input_layernorm"))],
            tables.get(EMBEDDING),
            tensors.rows.get(EMBEDDING),
        )
        for index, layer in enumerate(self._layers):

            def of_layer(names: Sequence[str], index: int = index) -> list[LoraPair | None]:
                return [pairs.get((index, name)) for name in names]

            def norm(name: str | None, index: int = index) -> Array | None:
                return None if name is None else norms.get((index, name))

            post_attn, pre_mlp, post_mlp = _NORM_NAMES[self.config.has_post_norms]
            yield AdapterProjection(layer.qkv, of_layer(QKV), [norm("self_attn.q_norm"), norm("self_attn.k_norm")])
            yield AdapterProjection([layer.out], of_layer(OUT), [norm(post_attn), norm(pre_mlp)])
            yield AdapterProjection([layer.gate, layer.up], of_layer(GATE_UP))
            yield AdapterProjection([layer.down], of_layer(DOWN), [norm(post_mlp), norms.get(after[index])])
        yield AdapterProjection([self._head], [pairs.get((MODEL, HEAD))], (), tables.get(HEAD), tensors.rows.get(HEAD))

    def forward(self, batch: ForwardBatch, cache: Sequence[KVGroup]) -> Array:
        """Run the batch, writing its keys and values into the cache. Returns logits [logit_rows, vocab]."""
        return self.logits(self.hidden(batch, cache), batch.logit_rows, batch.logit_adapters)

    def hidden(self, batch: ForwardBatch, cache: Sequence[KVGroup]) -> Array:
        """The first half of `forward`: the normed outputs of the last layer, [tokens, hidden]."""
        ops, eps = self._ops, self.config.rms_norm_eps
        x = ops.embedding(self._embedding, batch.ids, self.config.embed_scale, batch.adapters, 0)
        normed = ops.rms_norm(x, self._layers[0].input_norm, eps, batch.adapters, 0)
        for index, layer in enumerate(self._layers):
            group, place = self._kv_place[index]
            projection = 1 + index * _PROJECTIONS_PER_LAYER
            mixed = ops.self_attention(
                normed,
                layer.qkv,
                layer.attention,
                cache[group],
                place,
                batch.attention[group],
                batch.adapters,
                projection,
            )
            x, normed = ops.add_projection(
                x, mixed, layer.out, layer.post_attn_norm, layer.pre_mlp_norm, eps, batch.adapters, projection + 1
            )
            gated = ops.gated_linear(normed, layer.gate, layer.up, batch.adapters, projection + 2)
            x, normed = ops.add_projection(
                x, gated, layer.down, layer.post_mlp_norm, self._norms_after[index], eps, batch.adapters, projection + 3
            )
        return normed

    def logits(self, hidden: Array, rows: Array, adapters: LoraPlan) -> Array:
        """The second half: logits [n, vocab] of some rows of what `hidden` gave.

        rows      [n] int32
        adapters  which of these rows have which adapter, as indices into rows
        """
        projection = 1 + len(self._layers) * _PROJECTIONS_PER_LAYER
        chosen = self._ops.take_rows(hidden, rows)
        return self._ops.logits(chosen, self._head, self.config.final_softcap, adapters, projection)


# Names of the norms after attention, before the MLP and after it, with and without post norms. The same name has
# two meanings: Gemma 1 calls its pre-MLP norm post_attention_layernorm.
_NORM_NAMES: dict[bool, tuple[str | None, str, str | None]] = {
    True: ("post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"),
    False: (None, "post_attention_layernorm", None),
}


def _rope(layer: LayerConfig) -> tuple[float, float]:
    return (layer.rope_theta, layer.rope_factor)


class _WeightReader:
    """Tensors of a checkpoint by Hugging Face name, prepared by `ops`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        ops: Ops,
        fmt: WeightFormat,
        packed: PackedFile | None,
        on_bytes: Callable[[int], None],
    ) -> None:
        self._checkpoint = checkpoint
        self._packed = packed
        self._ops = ops
        self._fmt = fmt
        self._on_bytes = on_bytes
        # x̂ · (1 + w): GGUF files store 1 + w, safetensors files store w.
        self._norm_add = 0.0 if checkpoint.norm_includes_one else 1.0

    def norm(self, name: str) -> Array:
        return self._ops.vector(self._checkpoint.tensor(f"{name}.weight"), add=self._norm_add)

    def qk_norms(self, prefix: str, eps: float) -> QKNorms:
        return QKNorms(self.norm(f"{prefix}self_attn.q_norm"), self.norm(f"{prefix}self_attn.k_norm"), eps)

    def matrix(self, name: str, *, is_table: bool = False) -> Weight:
        raw = self._checkpoint.raw(f"{name}.weight")
        fmt = format_of(raw.dtype, self._fmt, is_table=is_table)
        if fmt == "w8" or fmt == "w5" or fmt == "w4":
            return self._quantized(name, raw, fmt)
        return self._ops.weight(plain_values(self._checkpoint.checked_raw(f"{name}.weight")), fmt)

    def _quantized(self, name: str, raw: RawTensor, fmt: QuantizedFormat) -> Weight:
        arrays = self._packed.get(name) if self._packed else None
        if arrays is not None:
            return self._ops.packed_weight(fmt, (raw.shape[0], raw.shape[1]), arrays)
        raw = self._checkpoint.checked_raw(f"{name}.weight")
        weight = self._ops.quantized_weight(quantize(raw, fmt, on_bytes=self._on_bytes))
        if self._packed:
            self._packed.put(name, self._ops.packed_arrays(weight))
        return weight

    def matrices(self, prefix: str, names: Sequence[str]) -> tuple[Weight, ...]:
        return tuple(self.matrix(prefix + name) for name in names)


def _read_layer(read: _WeightReader, config: ModelConfig, index: int, rope: RopeKind) -> LayerWeights:
    prefix = f"model.layers.{index}."
    post_attn, pre_mlp, post_mlp = _NORM_NAMES[config.has_post_norms]
    gate, up = read.matrices(prefix, GATE_UP)
    return LayerWeights(
        input_norm=read.norm(f"{prefix}input_layernorm"),
        pre_mlp_norm=read.norm(prefix + pre_mlp),
        post_attn_norm=read.norm(prefix + post_attn) if post_attn else None,
        post_mlp_norm=read.norm(prefix + post_mlp) if post_mlp else None,
        attention=AttentionKind(
            num_heads=config.num_heads,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rope=rope,
            norms=read.qk_norms(prefix, config.rms_norm_eps) if config.has_qk_norm else None,
            scale=config.score_scale,
            window=config.layers[index].window,
            softcap=config.attn_softcap,
        ),
        qkv=read.matrices(prefix, QKV),
        out=read.matrices(prefix, OUT)[0],
        gate=gate,
        up=up,
        down=read.matrices(prefix, DOWN)[0],
    )
