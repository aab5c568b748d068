"""Checks names, shapes and ranks against base, config and limits before a value is read, so that an adapter that does
not fit costs no memory.
"""

from __future__ import annotations

from intaglio.errors import AdapterError
from intaglio.lora.peft.config import CONFIG_FILE, PeftConfig, is_before
from intaglio.lora.peft.module_rules import ModuleRules
from intaglio.lora.peft.safetensors_file import TensorFile
from intaglio.lora.peft.tensor_names import EMBEDDING, HEAD, WEIGHTS_FILE, AdapterNames, PairNames
from intaglio.model.config import ModelConfig
from intaglio.ops import MODEL, ModuleKey

_DIFFERENT_TRAININGS = "the two files come from different trainings"


def check_ranks(file: TensorFile, names: AdapterNames, max_rank: int) -> None:
    """Check that A and B of each pair are matrices of one rank, which is within the limit."""
    for pair in names.pairs.values():
        a, b = _shape(file, pair.a), _shape(file, pair.b)
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or 0 in (*a, *b):
            raise _fault(
                f"tensor {pair.a!r} has shape {list(a)} and {pair.b!r} {list(b)}; "
                "[rank, in] and [out, rank] with one rank, at least 1, are needed"
            )
        if a[0] > max_rank:
            raise _fault(f"tensor {pair.a!r} has rank {a[0]}; this server's limit is {max_rank} (max_adapter_rank)")


def check_shapes(file: TensorFile, names: AdapterNames, peft: PeftConfig, config: ModelConfig) -> None:
    """Check that all tensors fit the base: their layers exist, and sizes match the modules. The error names the model
    that the adapter was trained on, if its config does.
    """
    try:
        _check_shapes(file, names, config)
    except AdapterError as error:
        named = f" ({CONFIG_FILE} names {peft.base_model[:80]!r})" if peft.base_model else ""
        raise AdapterError(
            f"{error}. The adapter was trained on another model{named}; upload it for that one"
        ) from None


def _check_shapes(file: TensorFile, names: AdapterNames, config: ModelConfig) -> None:
    for key, pair in names.pairs.items():
        _check_layer(pair.a, key, config)
        out_features, in_features = _pair_shape(key, config)
        _check_shape(file, pair.a, (None, in_features))
        _check_shape(file, pair.b, (out_features, None))
        if pair.bias is not None:
            _check_shape(file, pair.bias, (out_features,))
        if pair.magnitude is not None:
            _check_shape(file, pair.magnitude, (out_features,))
    shapes = config.tensor_shapes()
    for key, norm in names.norms.items():
        _check_layer(norm.tensor, key, config)
        layer, name = key
        shape = shapes.get(f"model.{name}.weight" if layer == MODEL else f"model.layers.{layer}.{name}.weight")
        if shape is None:
            raise _fault(f"tensor {norm.tensor!r} is for a norm that a {config.family} does not have")
        _check_shape(file, norm.tensor, shape)
    for rows in names.rows.values():
        _check_shape(file, rows.tensor, (None, config.hidden_size))


def _pair_shape(key: ModuleKey, config: ModelConfig) -> tuple[int, int]:
    """(out, in) of the pair; for a LoRA on the embedding `in` is the vocabulary."""
    layer, name = key
    if layer != MODEL:
        return config.linear_layer_shapes()[name]
    sizes = (config.hidden_size, config.vocab_size)
    return sizes if name == EMBEDDING else (sizes[1], sizes[0])


def _check_layer(tensor: str, key: ModuleKey, config: ModelConfig) -> None:
    if key[0] >= config.num_layers:
        raise _fault(f"tensor {tensor!r} is for layer {key[0]}; the base model has layers 0 to {config.num_layers - 1}")


def _check_shape(file: TensorFile, tensor: str, needed: tuple[int | None, ...]) -> None:
    """None in `needed` is a size that does not depend on the base: a rank or a number of rows."""
    shape = _shape(file, tensor)
    fits = len(shape) == len(needed) and all(want in (None, size) for want, size in zip(needed, shape, strict=True))
    if not fits:
        free = "rank" if tensor.rpartition(".")[2] != "trainable_tokens_delta" else "tokens"
        form = ", ".join(free if want is None else str(want) for want in needed)
        raise _fault(f"tensor {tensor!r} has shape {list(shape)}; the base model needs [{form}]")


def check_config(
    file: TensorFile, names: AdapterNames, peft: PeftConfig, rules: ModuleRules, config: ModelConfig
) -> None:
    """Check that the config agrees with the tensors: which modules are adapted, how and with which ranks."""
    ties = peft.ensure_weight_tying and config.tied_head
    paths = {key: pair.path for key, pair in names.pairs.items()}
    for key, pair in names.pairs.items():
        # With ensure_weight_tying, PEFT removes the head from the targets and gives it the embedding's LoRA.
        source = paths.get((MODEL, EMBEDDING), pair.path) if ties and key == (MODEL, HEAD) else pair.path
        if not rules.covers(source, key[0]) and not rules.covers(pair.path, key[0]):
            from_end = any(layer < 0 for layer in peft.layers_to_transform or ())
            reason = "in layers_to_transform PEFT counts no layer from the end" if from_end else _DIFFERENT_TRAININGS
            raise _fault(
                f"tensor {pair.a!r} is there, but {CONFIG_FILE} does not adapt {pair.path} "
                f"(target_modules, exclude_modules, layers_to_transform); {reason}"
            )
        _check_last_layers(key, pair, peft, config)
        rank, resolved = _shape(file, pair.a)[0], rules.rank(pair.path)
        if rank != resolved:
            raise _fault(
                f"tensor {pair.a!r} has rank {rank}; {CONFIG_FILE} gives {pair.path} rank {resolved} (r, rank_pattern)"
            )
        _check_variant(key, pair, peft)
    if ties and ((MODEL, EMBEDDING) in names.pairs) != ((MODEL, HEAD) in names.pairs):
        raise _fault(
            "ensure_weight_tying is on, but only one of embed_tokens and lm_head has a LoRA; "
            "save the adapter again with save_pretrained"
        )
    for key, norm in names.norms.items():
        if not rules.saves(norm.path):
            raise _fault(
                f"tensor {norm.tensor!r} replaces {key[1]}, but modules_to_save in {CONFIG_FILE} does not name it; "
                f"{_DIFFERENT_TRAININGS}"
            )
    for path, tensor in names.vision.items():
        layer = next((int(part) for part in path.split(".") if part.isdecimal()), 0)
        if not rules.covers(path, layer):
            raise _fault(
                f"tensor {tensor!r} is there, but {CONFIG_FILE} does not adapt {path} "
                f"(target_modules, exclude_modules, layers_to_transform); {_DIFFERENT_TRAININGS}"
            )
    _check_scaled_embedding(names, peft, config)


def _check_last_layers(key: ModuleKey, pair: PairNames, peft: PeftConfig, config: ModelConfig) -> None:
    """MLX adapts the last layers, and drops the tensors of others without a word."""
    first = config.num_layers - (peft.num_last_layers or config.num_layers)
    if MODEL < key[0] < first and pair.path not in peft.target_modules:
        raise _fault(
            f"tensor {pair.a!r} is for layer {key[0]}; num_layers in {CONFIG_FILE} is {peft.num_last_layers}, so MLX "
            f"adapts layers {first} to {config.num_layers - 1}; {_DIFFERENT_TRAININGS}"
        )


def _check_variant(key: ModuleKey, pair: PairNames, peft: PeftConfig) -> None:
    for setting, is_on, tensor, suffix in (
        # A LoRA on the embedding has no place for a bias.
        ("lora_bias", peft.lora_bias and key != (MODEL, EMBEDDING), pair.bias, "lora_B.bias"),
        ("use_dora", peft.use_dora, pair.magnitude, "lora_magnitude_vector"),
    ):
        if tensor is not None and not is_on:
            raise _fault(f"tensor {tensor!r} is there, but {setting} in {CONFIG_FILE} is off; {_DIFFERENT_TRAININGS}")
        if tensor is None and is_on:
            raise _fault(
                f"tensor {pair.b!r} has no {suffix} beside it, but {setting} in {CONFIG_FILE} is on; "
                f"{_DIFFERENT_TRAININGS}"
            )


def _check_scaled_embedding(names: AdapterNames, peft: PeftConfig, config: ModelConfig) -> None:
    """Gemma 3 multiplies by sqrt(hidden) inside its embedding. PEFT before 0.18 did not multiply the LoRA's product by
    it, so the meaning of such a file depends on the PEFT version.
    """
    tensors = [*(pair.b for key, pair in names.pairs.items() if key == (MODEL, EMBEDDING))]
    tensors += [rows.tensor for name, rows in names.rows.items() if name == EMBEDDING]
    if tensors and config.family == "gemma3" and is_before(peft.peft_version, 0, 18):
        raise _fault(
            f"tensor {tensors[0]!r} was trained by PEFT {peft.peft_version or 'of an unknown version'} (peft_version); "
            "before 0.18 it did not scale changes of Gemma 3's embedding like the embedding itself. Train again with "
            "PEFT 0.18 or newer; if it was that, set peft_version in adapter_config.json"
        )


def _shape(file: TensorFile, tensor: str) -> tuple[int, ...]:
    return file.entries[tensor].shape


def _fault(message: str) -> AdapterError:
    return AdapterError(f"{WEIGHTS_FILE}: {message}")
