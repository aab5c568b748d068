"""Adapters of MLX-LM: `adapters.safetensors`, and an `adapter_config.json` with the settings of the training.

    y = x · Wᵀ + scale · (x · lora_a) · lora_b     lora_a [in, rank], lora_b [rank, out]: PEFT's A and B, transposed
    y = m / |rows of W + scale · B · A| ⊙ (...)    with fine_tune_type "dora"; m [out]

MLX adapts the last `num_layers` layers, all of them if that is 0 or negative, and in them the modules that `keys`
names. It ignores tensors of other modules in silence; here they are refused.

    version   the factor                  what tells its files from later ones
    to 0.14   scale · alpha / rank        `lora_layers` and `use_dora`, and no `fine_tune_type`
    to 0.18   scale                       the same: its default config still has an `alpha`, which is not used
    to 0.23   scale                       `num_layers` and `fine_tune_type`; an `alpha` that is not used
    today     scale                       an `alpha` only if a user's file of settings has one; it is not used
Source: mlx-lm, lora.py, tuner/lora.py, tuner/dora.py and tuner/utils.py, of versions 0.14 to 0.32.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from intaglio.errors import AdapterError
from intaglio.lora.peft import config_values as values
from intaglio.lora.peft.config import PeftConfig
from intaglio.lora.peft.config_values import CONFIG_FILE, fault

_PARAMETERS = "lora_parameters"
_KIND = "fine_tune_type"
_USED = ("rank", "scale", "keys", "dropout")
_TRANSPOSED = (".lora_a", ".lora_b")


def is_mlx_config(raw: Mapping[str, Any]) -> bool:
    return "peft_type" not in raw and (_PARAMETERS in raw or _KIND in raw)


def is_transposed(tensor: str) -> bool:
    """Whether this is the name of a matrix that MLX stores transposed."""
    return tensor.endswith(_TRANSPOSED)


def mlx_config(raw: Mapping[str, Any]) -> PeftConfig:
    """The same settings in PEFT's terms. Raises AdapterError naming the key, its value and what to do."""
    kind = raw.get(_KIND, "dora" if values.flag(raw, "use_dora") else "lora")
    if kind == "full":
        raise fault(
            _KIND,
            kind,
            "its file has whole weights of the base. Fuse them with mlx_lm.fuse, and serve the model",
        )
    if kind not in ("lora", "dora"):
        raise fault(_KIND, kind, "lora and dora are served")
    parameters = raw.get(_PARAMETERS)
    if not isinstance(parameters, dict):
        raise fault(_PARAMETERS, parameters, "an object with rank and scale is needed")
    _check_parameters(parameters, is_old=_KIND not in raw)
    rank = values.rank(parameters.get("rank"), f"{_PARAMETERS} rank")
    scale = values.alpha(parameters.get("scale"), f"{_PARAMETERS} scale")
    keys = parameters.get("keys")
    return PeftConfig(
        r=rank,
        lora_alpha=scale * rank,
        use_rslora=False,
        rank_pattern={},
        alpha_pattern={},
        target_modules="all-linear" if keys is None else _keys(keys),
        exclude_modules=(),
        layers_to_transform=None,
        model_type=None,
        base_model=values.text(raw, "model"),
        use_dora=kind == "dora",
        num_last_layers=_num_layers(raw),
    )


def _check_parameters(parameters: Mapping[str, Any], is_old: bool) -> None:
    """is_old: of a version to 0.18, of which some multiplied by alpha / rank too."""
    alpha = parameters.get("alpha")
    if is_old and alpha is not None and alpha != parameters.get("rank"):
        raise AdapterError(
            f"{CONFIG_FILE}: {_PARAMETERS} has alpha {reprlib.repr(alpha)} beside scale, and there is no {_KIND}: "
            "mlx-lm multiplied by scale · alpha / rank until 0.14, and by scale alone from 0.15 on. Set scale to the "
            "factor of your version, and remove alpha"
        )
    for key, value in parameters.items():
        if key not in (*_USED, "alpha") and value:
            raise AdapterError(
                f"{CONFIG_FILE}: {_PARAMETERS} has the unknown key {key[:80]!r}, set to {reprlib.repr(value)}; if it "
                "does not change what the adapter computes, remove it"
            )


def _keys(keys: object) -> tuple[str, ...]:
    found = values.names(keys, f"{_PARAMETERS} keys")
    if isinstance(found, str):
        raise fault(f"{_PARAMETERS} keys", keys, "a list of module names is needed")
    return found


def _num_layers(raw: Mapping[str, Any]) -> int | None:
    """How many of the last layers are adapted; None is all. Before 0.19 the key was lora_layers."""
    value = raw.get("num_layers", raw.get("lora_layers"))
    if value is None:
        return None
    if type(value) is not int:
        raise fault("num_layers", value, "the number of adapted layers, counted from the last, is needed; -1 is all")
    return value if value > 0 else None
