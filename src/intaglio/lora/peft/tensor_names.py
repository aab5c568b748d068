"""From tensor names to the modules of a Gemma.

PEFT writes `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`. Accepted too: without `base_model.model.`;
with the adapter's name inside, as in a raw state dict (`lora_A.default.weight`); with what torch adds when it compiles
or shards (`_orig_mod.`, `_fsdp_wrapped_module.`, `module.`); with `language_model.`, as saved from the multimodal
Gemma 3; without the leading `model.`, as saved from a model without head; as MLX-LM names them (`lora_a`, `lora_b`,
`m`). A LoRA on the vision tower of a multimodal Gemma 3 changes nothing in a text, so it is set aside.

Every tensor must belong to a module whose tensors are complete. Any other is refused with a message that says what it
is: an adapter with a part left out would still generate text, only worse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from intaglio.errors import AdapterError
from intaglio.ops import MODEL, ModuleKey

WEIGHTS_FILE = "adapter_model.safetensors"

EMBEDDING = "embed_tokens"
HEAD = "lm_head"

# Kinds of tensors: a part of a LoRA, single rows, a whole module, or the base's own weight that PEFT saved with them.
Kind = Literal["A", "B", "bias", "magnitude", "rows", "saved", "base"]
_LORA_KINDS = ("A", "B", "bias", "magnitude")

# Names of torch's wrappers around modules that it compiles, shards or checkpoints; no path of a Gemma has them.
_WRAPPERS = re.compile(r"(?:^module\.)|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_INSIDE = r"(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.|)"
_LINEAR_LAYER = r"self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj"
_LAYER_NORM = r"input_layernorm|post_attention_layernorm|(?:pre|post)_feedforward_layernorm|self_attn\.[qk]_norm"
_ADAPTER = r"(?:\.(?P<adapter>(?!(?:weight|bias)$)[^.]+))?"  # `weight` or `bias` at the end is not an adapter's name

_MODULES = {
    "linear layer": rf"{_INSIDE}layers\.(?P<layer>0|[1-9][0-9]{{0,5}})\.(?P<name>{_LINEAR_LAYER})",
    "norm": rf"{_INSIDE}(?:layers\.(?P<layer>0|[1-9][0-9]{{0,5}})\.(?P<name>{_LAYER_NORM})|(?P<last>norm))",
    EMBEDDING: rf"{_INSIDE}(?P<name>{EMBEDDING})",
    HEAD: rf"{_INSIDE}(?P<name>{HEAD})",
}
_PARTS: tuple[tuple[Kind, str, tuple[str, ...]], ...] = (
    ("A", rf"lora_A{_ADAPTER}\.weight", ("linear layer", HEAD)),
    ("B", rf"lora_B{_ADAPTER}\.weight", ("linear layer", HEAD)),
    ("bias", rf"lora_B{_ADAPTER}\.bias", ("linear layer", HEAD)),
    ("A", rf"lora_embedding_A{_ADAPTER}", (EMBEDDING,)),
    ("B", rf"lora_embedding_B{_ADAPTER}", (EMBEDDING,)),
    ("magnitude", rf"lora_magnitude_vector{_ADAPTER}", ("linear layer", EMBEDDING, HEAD)),
    ("A", "lora_a", ("linear layer", HEAD)),
    ("B", "lora_b", ("linear layer", HEAD)),
    ("magnitude", "m", ("linear layer", HEAD)),
    ("rows", rf"token_adapter\.trainable_tokens_delta{_ADAPTER}", (EMBEDDING, HEAD)),
    ("base", r"(?:token_adapter\.)?(?:base_layer|original_module)\.weight", (EMBEDDING, HEAD)),
    ("saved", rf"(?:modules_to_save{_ADAPTER}\.)?weight", ("norm", EMBEDDING, HEAD)),
)
_FORMS = tuple(
    (kind, re.compile(rf"(?:base_model\.model\.)?(?P<path>{_MODULES[module]})\.{part}"))
    for kind, part, modules in _PARTS
    for module in modules
)

_VISION = re.compile(
    rf"(?:base_model\.model\.)?(?P<path>(?:model\.)?(?:vision_tower|vision_model|multi_modal_projector)\.[A-Za-z0-9_.]+)"
    rf"\.(?:lora_(?P<half>[AB]){_ADAPTER}\.(?:weight|bias)|lora_magnitude_vector{_ADAPTER.replace('adapter', 'other')})"
)
_WHOLE_LAYER = re.compile(rf".*(?:{_LINEAR_LAYER})\.weight")

# Paths whose ends modules_to_save may name; layer 0 represents all layers.
_SAVABLE = tuple(
    f"{inside}{path}"
    for inside in ("model.", "model.language_model.", "language_model.model.", "language_model.")
    for path in (
        *(f"layers.0.self_attn.{qk}_norm" for qk in "qk"),
        *(f"layers.0.{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")),
        "norm",
        EMBEDDING,
        HEAD,
    )
)

_SAVE_PLAIN = (
    "Train a plain LoRA on the seven linear layers (q, k, v, o, gate, up, down) and save it with save_pretrained"
)
_NOT_LORA = f"is not a LoRA weight of a Gemma layer. {_SAVE_PLAIN}"

_OF_MLX = (
    "is a LoRA of MLX on the embedding, which on some bases changes the head too. Train without embed_tokens in keys, "
    "or fuse it with mlx_lm.fuse and serve the model"
)

# The first match decides the message: longer words come before the words they contain.
_REFUSED_KINDS = (
    ("lora_diag", "belongs to KaSA, which is not served. Train without kasa_config"),
    ("embed_tokens.lora_a", _OF_MLX),
    ("embed_tokens.lora_b", _OF_MLX),
    ("vision_tower", "belongs to the vision tower; this server runs the text model. Exclude it with exclude_modules"),
    ("multi_modal_projector", "belongs to the image projector; this server runs the text model. Exclude it likewise"),
    ("base_layer", "is a weight of the base model. Save the adapter alone, with save_pretrained"),
    ("original_module", "is a weight of the base model. Save the adapter alone, with save_pretrained"),
    ("score.", "belongs to a classification head; this server generates text. Train with task_type CAUSAL_LM"),
    ("lora_", _NOT_LORA),
    (".bias", "is a bias, which no Gemma has. Train with bias='none'"),
    ("_proj.", "replaces a whole linear layer, which is not served. Name it in target_modules, not in modules_to_save"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorName:
    """A parsed tensor name. path: its module's path in training, against which the config's patterns are matched."""

    kind: Kind
    key: ModuleKey
    path: str
    adapter: str | None


@dataclass(frozen=True, slots=True)
class PairNames:
    """The names of one module's LoRA tensors in the file, and the module's path."""

    a: str
    b: str
    path: str
    bias: str | None = None
    magnitude: str | None = None


@dataclass(frozen=True, slots=True)
class SingleName:
    """The name of a tensor that is not part of a pair, and its module's path."""

    tensor: str
    path: str


@dataclass(slots=True)
class AdapterNames:
    """The tensor names of a file, by kind.

    pairs   in order of module
    norms   whole norms
    rows    single rows of "embed_tokens" or "lm_head"
    saved   whole tables; the config tells whether they are the adapter's or the base's
    base    tables of the base that PEFT saved with a LoRA
    vision  modules of the vision tower with a LoRA: path -> one of its tensors. They change nothing in a text
    """

    pairs: dict[ModuleKey, PairNames] = field(default_factory=dict)
    norms: dict[ModuleKey, SingleName] = field(default_factory=dict)
    rows: dict[str, SingleName] = field(default_factory=dict)
    saved: dict[str, SingleName] = field(default_factory=dict)
    base: dict[str, SingleName] = field(default_factory=dict)
    vision: dict[str, str] = field(default_factory=dict)


def can_be_saved(name: str) -> bool:
    """Whether an entry of modules_to_save, which PEFT compares with the end of a path, can name a supported module."""
    zeroed = re.sub(r"(?<![^.])\d+(?![^.])", "0", name)
    return any(path.endswith(zeroed) for path in (*_SAVABLE, HEAD))


def parse_tensor_name(name: str, label: str) -> TensorName:
    """Parse a tensor name. Raises AdapterError, saying what the tensor is, if it does not belong in an adapter."""
    bare = _bare(name)
    for kind, form in _FORMS:
        match = form.fullmatch(bare)
        if match is not None:
            groups = match.groupdict()
            layer = groups.get("layer")
            key = (MODEL if layer is None else int(layer), groups.get("name") or groups["last"])
            return TensorName(kind, key, match["path"], groups.get("adapter"))
    raise AdapterError(f"{label}: tensor {name!r} {_describe_refused(bare)}")


def _bare(name: str) -> str:
    """The name without what torch adds."""
    bare = _WRAPPERS.sub("", name)
    if bare.endswith(".weight") and "lora_magnitude_vector" in bare:  # PEFT wrote it in two ways
        bare = bare.removesuffix(".weight")
    return bare


def _describe_refused(name: str) -> str:
    for fragment, meaning in _REFUSED_KINDS:
        if fragment in name:
            return meaning
    return _NOT_LORA


def sort_tensors(names: Iterable[str], label: str) -> AdapterNames:
    """Sort tensor names by module and kind.

    Raises AdapterError for an unknown name, half a pair, one module under two names, two adapters in one file,
    or no tensor at all.
    """
    names = list(names)
    _refuse_checkpoint(names, label)
    vision = _vision_modules(names, label)
    parsed = {name: parse_tensor_name(name, label) for name in names if _VISION.fullmatch(_bare(name)) is None}
    _check_one_adapter(parsed.values(), label)
    if not parsed:
        what = "tensors but those of the vision tower" if vision else "tensors"
        raise AdapterError(f"{label}: holds no {what}, so it would change nothing in a text. {_SAVE_PLAIN}")
    modules: dict[ModuleKey, dict[Kind, str]] = {}
    for name, tensor in parsed.items():
        module = modules.setdefault(tensor.key, {})
        if tensor.kind in module:
            is_table = tensor.kind == "saved" and tensor.key[1] in (EMBEDDING, HEAD)  # PEFT itself can write both
            remedy = "save the adapter again with save_embedding_layers=False" if is_table else "keep one"
            raise AdapterError(
                f"{label}: tensors {module[tensor.kind]!r} and {name!r} are the same one under two spellings; {remedy}"
            )
        module[tensor.kind] = name
    found = AdapterNames(vision=vision)
    for key in sorted(modules):
        _add_module(found, key, modules[key], parsed, label)
    return found


def _refuse_checkpoint(names: Sequence[str], label: str) -> None:
    """Refuse the weights of a model, which have whole linear layers and no LoRA."""
    if any("lora_" in name or name.endswith(("_delta", ".m")) for name in names):
        return
    layers = [name for name in names if _WHOLE_LAYER.fullmatch(name)]
    if layers:
        raise AdapterError(
            f"{label}: is a whole checkpoint, not an adapter: of its {len(names)} tensors none is a LoRA's, and "
            f"{layers[0]!r} is a weight of the base. Serve it as a model, with --model ID=FOLDER, or save the adapter "
            "alone"
        )


def _vision_modules(names: Sequence[str], label: str) -> dict[str, str]:
    """The modules of the vision tower, each with a tensor. Raises AdapterError for half a pair."""
    halves: dict[str, dict[str, str]] = {}
    for name in names:
        match = _VISION.fullmatch(_bare(name))
        if match is not None:
            halves.setdefault(match["path"], {})[match["half"] or "magnitude"] = name
    for tensors in halves.values():
        for half in ("A", "B"):
            if half not in tensors:
                raise _half_missing(next(iter(tensors.values())), half, label)
    return {path: tensors["A"] for path, tensors in halves.items()}


def _half_missing(tensor: str, half: str, label: str) -> AdapterError:
    return AdapterError(
        f"{label}: tensor {tensor!r} has no lora_{half} beside it; the file is incomplete, save it again"
    )


def _check_one_adapter(tensors: Iterable[TensorName], label: str) -> None:
    # PEFT omits the adapter's name from tensors other than LoRA's, even if the others have it.
    named = {tensor.adapter or "" for tensor in tensors if tensor.adapter or tensor.kind not in ("saved", "base")}
    adapters = sorted(named)
    if len(adapters) > 1:
        raise AdapterError(
            f"{label}: holds the adapters {adapters[0]!r} and {adapters[1]!r}; save each one to its own folder"
        )


def _add_module(
    found: AdapterNames, key: ModuleKey, module: dict[Kind, str], parsed: dict[str, TensorName], label: str
) -> None:
    """Add the names of one module's tensors."""
    name = key[1]
    alone = {kind: SingleName(tensor, parsed[tensor].path) for kind, tensor in module.items()}
    if "saved" in alone and name not in (EMBEDDING, HEAD):
        found.norms[key] = alone["saved"]
        return
    if "rows" in alone:
        found.rows[name] = alone["rows"]
    if "saved" in alone:
        found.saved[name] = alone["saved"]
    if "base" in alone:
        found.base[name] = alone["base"]
    lora: dict[Kind, str] = {kind: tensor for kind, tensor in module.items() if kind in _LORA_KINDS}
    if lora:
        found.pairs[key] = _pair_names(lora, parsed, label)


def _pair_names(module: dict[Kind, str], parsed: dict[str, TensorName], label: str) -> PairNames:
    for half in ("A", "B"):
        if half not in module:
            raise _half_missing(next(iter(module.values())), half, label)
    paths = {parsed[name].path for name in module.values()}
    if len(paths) > 1:  # the config's patterns are matched against one path
        raise AdapterError(
            f"{label}: tensors {module['A']!r} and {module['B']!r} spell their module differently; use one spelling"
        )
    return PairNames(module["A"], module["B"], paths.pop(), module.get("bias"), module.get("magnitude"))
