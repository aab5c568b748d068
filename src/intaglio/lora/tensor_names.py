"""Which module a tensor of an adapter belongs to, in every spelling that trainers write.

    base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight              PEFT's save_pretrained
    model.layers.3.self_attn.q_proj.lora_A.default.weight                       a raw state dict, adapter name inside
    _orig_mod.base_model.model.model.language_model.layers.3. ...               compiled, multimodal Gemma 3

All three are (3, "self_attn.q_proj") and half A. A name that is none of the fourteen halves of a layer is refused, with
what it is and what its owner can do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from intaglio.errors import AdapterError

Half = Literal["A", "B"]
ModuleKey = tuple[int, str]  # (layer index, "self_attn.q_proj")

# What torch puts around a module that it compiles, shards or checkpoints; never part of a Gemma's own paths.
_WRAPPERS = re.compile(r"(?:^module\.)|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

_LORA_WEIGHT = re.compile(
    r"""(?:base_model\.model\.)?
        (?P<path>
            (?:model\.language_model\.|language_model\.model\.|language_model\.|model\.|)
            layers\.(?P<layer>0|[1-9][0-9]{0,5})\.
            (?P<projection>self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj)
        )
        \.lora_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?\.weight""",
    re.VERBOSE,
)

_SAVE_PLAIN = (
    "Train a plain LoRA on the seven projections (q, k, v, o, gate, up, down) and save it with save_pretrained"
)

# First match names the tensor's kind: the special ones stand before the words they contain.
_REFUSED_KINDS = (
    ("lora_magnitude_vector", "belongs to DoRA, which is not served. Train with use_dora=False"),
    ("lora_diag", "belongs to KaSA, which is not served. Train without kasa_config"),
    ("token_adapter", "holds trained token rows, which are not served. Train without trainable_token_indices"),
    ("modules_to_save", "replaces a whole module of the base, which is not served. Train without modules_to_save"),
    ("lora_embedding_", "is a LoRA on the embedding, which is not served. Leave embed_tokens out of target_modules"),
    ("vision_tower", "belongs to the vision tower; this server runs the text model. Exclude it with exclude_modules"),
    ("multi_modal_projector", "belongs to the image projector; this server runs the text model. Exclude it likewise"),
    ("base_layer", "is a weight of the base model. Save the adapter alone, with save_pretrained"),
    ("embed_tokens", "replaces the embedding, which is not served. Keep the vocabulary, save_embedding_layers=False"),
    ("lm_head", "changes the output head, which is not served. Leave it out of target_modules and modules_to_save"),
    ("score.", "belongs to a classification head; this server generates text. Train with task_type CAUSAL_LM"),
    (".bias", "is a bias, which is not served. Train with bias='none' and lora_bias=False"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorName:
    """A tensor's place. path is its module's as PEFT saw it in training, which the config's patterns are about."""

    key: ModuleKey
    half: Half
    path: str
    adapter: str | None


@dataclass(frozen=True, slots=True)
class PairNames:
    """The names of one module's two tensors in the file, and the module's path."""

    a: str
    b: str
    path: str


def parse_tensor_name(name: str, label: str) -> TensorName:
    """Take a tensor name apart. Raises AdapterError saying what it is when it is no LoRA half of a projection."""
    match = _LORA_WEIGHT.fullmatch(_WRAPPERS.sub("", name))
    if match is None:
        raise AdapterError(f"{label}: tensor {name!r} {_what_it_is(name)}")
    half: Half = "A" if match["half"] == "A" else "B"
    return TensorName((int(match["layer"]), match["projection"]), half, match["path"], match["adapter"])


def _what_it_is(name: str) -> str:
    for fragment, meaning in _REFUSED_KINDS:
        if fragment in name:
            return meaning
    return f"is no LoRA weight of a Gemma layer. {_SAVE_PLAIN}"


def pair_tensors(names: Iterable[str], label: str) -> dict[ModuleKey, PairNames]:
    """Sort tensor names into complete pairs, by layer and projection.

    Raises AdapterError for a name that is not known, half a pair, one module under two names, two adapters in one file,
    or no module at all.
    """
    parsed = {name: parse_tensor_name(name, label) for name in names}
    adapters = sorted({tensor.adapter or "" for tensor in parsed.values()})
    if len(adapters) > 1:
        raise AdapterError(
            f"{label}: holds the adapters {adapters[0]!r} and {adapters[1]!r}; save each one to its own folder"
        )
    halves: dict[ModuleKey, dict[Half, str]] = {}
    for name, tensor in parsed.items():
        module = halves.setdefault(tensor.key, {})
        if tensor.half in module:
            raise AdapterError(f"{label}: tensors {module[tensor.half]!r} and {name!r} are the same one, spelt twice")
        module[tensor.half] = name
    if not halves:
        raise AdapterError(f"{label}: holds no tensors, so it would change nothing. {_SAVE_PLAIN}")
    return {key: _complete(halves[key], parsed, label) for key in sorted(halves)}


def _complete(module: dict[Half, str], parsed: dict[str, TensorName], label: str) -> PairNames:
    if len(module) == 1:
        ((half, name),) = module.items()
        raise AdapterError(f"{label}: tensor {name!r} has no lora_{'B' if half == 'A' else 'A'} beside it")
    a, b = parsed[module["A"]], parsed[module["B"]]
    if a.path != b.path:  # the patterns of the config could then not tell which of the two is meant
        raise AdapterError(f"{label}: tensors {module['A']!r} and {module['B']!r} spell their module differently")
    return PairNames(module["A"], module["B"], a.path)
