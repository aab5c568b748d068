"""Gemma 1, 2 and 3 (text): from token ids to logits, for a batch of sequences with any mix of adapters.

One file for three generations, because they differ in a handful of places, all visible below: Gemma 2 and 3 norm what
attention and MLP give back before adding it, Gemma 2 caps scores and logits, Gemma 3 norms q and k, and both of the
later ones alternate layers with a sliding window and layers without. What a layer needs of this stands in
`ModelConfig`.

The forward knows rows, positions and cache slots; it does not know requests, nor what an array is made of (`ops` does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from intaglio.model.config import ModelConfig
from intaglio.model.weights import Checkpoint
from intaglio.ops import Array, AttentionRow, Format, KVGroup, LoraPair, LoraSegment, Ops, Weight

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUT = ("self_attn.o_proj",)
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
DOWN = ("mlp.down_proj",)

AdapterPairs = Mapping[tuple[int, str], LoraPair]  # (layer index, projection) -> its A and B


@dataclass(frozen=True, slots=True)
class AdapterRows:
    """Rows start ... stop - 1 of the batch belong to one adapter. Rows of the base model appear in none."""

    start: int
    stop: int
    pairs: AdapterPairs


@dataclass(frozen=True, slots=True)
class KVRows:
    """Where the batch's keys and values go in one group of layers, and what each sequence may look at.

    slots  [tokens] int32
    rows   one per sequence
    """

    slots: Array
    rows: Sequence[AttentionRow]


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """Everything one forward needs.

    ids, positions  [tokens] int32
    adapters        runs of rows with one adapter, ascending
    kv              one entry per group of `kv_groups(config)`
    logit_rows      [n] int32: the rows whose logits are wanted
    """

    ids: Array
    positions: Array
    adapters: Sequence[AdapterRows]
    kv: Sequence[KVRows]
    logit_rows: Array


@dataclass(frozen=True, slots=True)
class KVGroupShape:
    """Layers that keep the same positions: all of them, or the last `window`."""

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
    """One block. The norms hold their +1 already; the post norms and q/k norms are None where the generation has
    none.
    """

    input_norm: Array
    pre_mlp_norm: Array
    post_attn_norm: Array | None
    post_mlp_norm: Array | None
    q_norm: Array | None
    k_norm: Array | None
    qkv: tuple[Weight, ...]
    out: tuple[Weight, ...]
    gate_up: tuple[Weight, ...]
    down: tuple[Weight, ...]


class Gemma:
    """A loaded model. Stateless: the cache is handed in."""

    def __init__(self, config: ModelConfig, checkpoint: Checkpoint, ops: Ops, fmt: Format) -> None:
        self.config = config
        self._ops = ops
        read = _WeightReader(checkpoint, ops, fmt)
        self._embedding = read.matrix("model.embed_tokens")
        self._head = self._embedding if config.tied_head else read.matrix("lm_head")
        self._final_norm = read.norm("model.norm")
        self._layers = [_read_layer(read, config, index) for index in range(config.num_layers)]
        # layer -> (its group, its place in the group's cache)
        self._kv_place = {
            layer: (group_idx, place)
            for group_idx, group in enumerate(kv_groups(config))
            for place, layer in enumerate(group.layers)
        }

    def forward(self, batch: ForwardBatch, cache: Sequence[KVGroup]) -> Array:
        """Run the batch, writing its keys and values into the cache. Returns logits [len(logit_rows), vocab] float32.
        """
        ops, config = self._ops, self.config
        x = ops.embedding(self._embedding, batch.ids, config.embed_scale)
        for index, layer in enumerate(self._layers):
            attn = self._attention(index, layer, ops.rms_norm(x, layer.input_norm, config.rms_norm_eps), batch, cache)
            x = ops.add(x, self._maybe_norm(attn, layer.post_attn_norm))
            mlp = self._mlp(index, layer, ops.rms_norm(x, layer.pre_mlp_norm, config.rms_norm_eps), batch)
            x = ops.add(x, self._maybe_norm(mlp, layer.post_mlp_norm))
        x = ops.rms_norm(ops.take_rows(x, batch.logit_rows), self._final_norm, config.rms_norm_eps)
        return ops.logits(x, self._head, config.final_softcap)

    def _attention(
        self, index: int, layer: LayerWeights, x: Array, batch: ForwardBatch, cache: Sequence[KVGroup]
    ) -> Array:
        ops, config = self._ops, self.config
        q, k, v = ops.linears(x, layer.qkv, _segments(batch.adapters, index, QKV))
        tokens = x.shape[0]
        q = self._maybe_norm(q.reshape(tokens, config.num_heads, config.head_dim), layer.q_norm)
        k = self._maybe_norm(k.reshape(tokens, config.num_kv_heads, config.head_dim), layer.k_norm)
        v = v.reshape(tokens, config.num_kv_heads, config.head_dim)
        kind = config.layers[index]
        q = ops.rope(q, batch.positions, kind.rope_theta, kind.rope_factor)
        k = ops.rope(k, batch.positions, kind.rope_theta, kind.rope_factor)
        group_idx, place = self._kv_place[index]
        kv = batch.kv[group_idx]
        ops.write_kv(cache[group_idx], place, k, v, kv.slots)
        mixed = ops.attention(q, cache[group_idx], place, kv.rows, config.score_scale, kind.window, config.attn_softcap)
        (out,) = ops.linears(mixed.reshape(tokens, config.q_size), layer.out, _segments(batch.adapters, index, OUT))
        return out

    def _mlp(self, index: int, layer: LayerWeights, x: Array, batch: ForwardBatch) -> Array:
        gate, up = self._ops.linears(x, layer.gate_up, _segments(batch.adapters, index, GATE_UP))
        (down,) = self._ops.linears(self._ops.gelu_gate(gate, up), layer.down, _segments(batch.adapters, index, DOWN))
        return down

    def _maybe_norm(self, x: Array, weight: Array | None) -> Array:
        return x if weight is None else self._ops.rms_norm(x, weight, self.config.rms_norm_eps)


def _segments(adapters: Sequence[AdapterRows], layer: int, names: Sequence[str]) -> list[LoraSegment]:
    """The adapters that touch any of these projections in this layer."""
    segments = []
    for rows in adapters:
        pairs = tuple(rows.pairs.get((layer, name)) for name in names)
        if any(pair is not None for pair in pairs):
            segments.append(LoraSegment(rows.start, rows.stop, pairs))
    return segments


class _WeightReader:
    """Tensors of a checkpoint by Hugging Face name, prepared by `ops`."""

    def __init__(self, checkpoint: Checkpoint, ops: Ops, fmt: Format) -> None:
        self._checkpoint = checkpoint
        self._ops = ops
        self._fmt = fmt
        # x̂ · (1 + w): GGUF files store 1 + w, safetensors files store w.
        self._norm_add = 0.0 if checkpoint.norm_includes_one else 1.0

    def norm(self, name: str) -> Array:
        return self._ops.vector(self._checkpoint.tensor(f"{name}.weight"), add=self._norm_add)

    def matrix(self, name: str) -> Weight:
        return self._ops.weight(self._checkpoint.tensor(f"{name}.weight"), self._fmt)

    def matrices(self, prefix: str, names: Sequence[str]) -> tuple[Weight, ...]:
        return tuple(self.matrix(prefix + name) for name in names)


def _read_layer(read: _WeightReader, config: ModelConfig, index: int) -> LayerWeights:
    prefix = f"model.layers.{index}."
    post = config.has_post_norms
    qk = config.has_qk_norm
    # The same name, two meanings: Gemma 1 calls its pre-MLP norm post_attention_layernorm.
    pre_mlp = "pre_feedforward_layernorm" if post else "post_attention_layernorm"
    return LayerWeights(
        input_norm=read.norm(f"{prefix}input_layernorm"),
        pre_mlp_norm=read.norm(prefix + pre_mlp),
        post_attn_norm=read.norm(f"{prefix}post_attention_layernorm") if post else None,
        post_mlp_norm=read.norm(f"{prefix}post_feedforward_layernorm") if post else None,
        q_norm=read.norm(f"{prefix}self_attn.q_norm") if qk else None,
        k_norm=read.norm(f"{prefix}self_attn.k_norm") if qk else None,
        qkv=read.matrices(prefix, QKV),
        out=read.matrices(prefix, OUT),
        gate_up=read.matrices(prefix, GATE_UP),
        down=read.matrices(prefix, DOWN),
    )
