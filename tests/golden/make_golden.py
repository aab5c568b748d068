"""Make the golden files: logits by transformers and PEFT in float32.

    .venv-oracle/bin/python -m tests.golden.make_golden [tiny] [adapters] [whole] [270m]

Without arguments all four. Needs the environment of `make test-oracle`; the last takes about two minutes and 4 GB.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intaglio.model.bundled import bundled_model_path
from intaglio.settings import Settings
from intaglio.text import load_tokenizer
from tests.golden import cases
from tests.helpers.checkpoints import FAMILIES, Family, write_hf_folder
from tests.oracle.transformers_peft import (
    add_peft_adapter,
    hf_logits,
    load_hf,
    load_hf_gguf,
    peft_logits,
    peft_mixed_logits,
    save_random_adapter,
)

# Each says with PEFT's own words what is special about it; all rank and alpha values differ.
_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_ADAPTERS: dict[str, dict[str, Any]] = {
    "rs_patterns": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "target_modules": _SEVEN,
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {"o_proj": 3, "k_proj": 20},
    },
    "q_v": {"r": 2, "lora_alpha": 5},  # target_modules left to PEFT
    "two_layers": {
        "r": 3,
        "lora_alpha": 7,
        "layers_to_transform": [0, 2],
        "target_modules": ["k_proj", "gate_proj", "up_proj"],
    },
    "all_linear": {"r": 1, "lora_alpha": 2, "target_modules": "all-linear"},
    "regex": {"r": 5, "lora_alpha": 9, "target_modules": r".*layers\.[12]\.(self_attn\.o_proj|mlp\.down_proj)"},
}

# Few modules each, so that the files stay small.
_SOME = ["layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"]
_WHOLE: dict[str, dict[str, Any]] = {
    "dora": {"r": 3, "lora_alpha": 5, "use_dora": True, "target_modules": [*_SOME, "embed_tokens", "lm_head"]},
    "bias": {"r": 2, "lora_alpha": 7, "lora_bias": True, "target_modules": [*_SOME, "lm_head"]},
    "embedding_and_head": {
        "r": 4,
        "lora_alpha": 6,
        "use_rslora": True,
        "target_modules": [*_SOME, "embed_tokens", "lm_head"],
        "rank_pattern": {"embed_tokens": 2},
        "alpha_pattern": {"lm_head": 3},
    },
    "tied": {"r": 2, "lora_alpha": 3, "target_modules": [*_SOME, "embed_tokens"], "ensure_weight_tying": True},
    "tokens": {"r": 1, "lora_alpha": 2, "target_modules": _SOME, "trainable_token_indices": [77, 5, 130]},
    "tokens_apart": {
        "r": 1,
        "lora_alpha": 2,
        "target_modules": _SOME,
        "trainable_token_indices": {"embed_tokens": [9, 3], "lm_head": [3, 200]},
    },
    "tokens_under_head": {
        "r": 2,
        "lora_alpha": 5,
        "target_modules": [*_SOME, "lm_head"],
        "trainable_token_indices": [100, 6],
    },
    "norms": {"r": 1, "lora_alpha": 2, "target_modules": _SOME, "modules_to_save": ["norm"]},
    "saved_embedding": {"r": 1, "lora_alpha": 2, "target_modules": _SOME, "modules_to_save": ["embed_tokens"]},
    "saved_head": {
        "r": 1,
        "lora_alpha": 2,
        "target_modules": _SOME,
        "modules_to_save": ["lm_head", "1.input_layernorm"],
    },
    "embedding": {"r": 2, "lora_alpha": 9, "target_modules": ["embed_tokens"]},
}
_MET = (77, 5, 130, 9, 3, 200, 100, 6)  # tokens whose rows are replaced


def main(wanted: list[str]) -> None:
    makers = {"tiny": make_tiny, "adapters": make_adapters, "whole": make_whole, "270m": make_270m}
    for name in wanted or list(makers):
        makers[name]()


def make_tiny() -> None:
    """Every row and column of each tiny model."""
    for family in FAMILIES:
        config, weights = cases.tiny_model(family)
        ids = _random_ids(config["vocab_size"], cases.SEEDS[family], (cases.NUM_TOKENS,))
        with tempfile.TemporaryDirectory() as folder:
            model = load_hf(write_hf_folder(Path(folder), config, weights))
            logits = hf_logits(model, ids)
        _save(f"tiny_{family}", ids=ids, logits=logits, weights_sha256=np.array(cases.checksum(weights)))


def make_adapters() -> None:
    """PEFT's mixed batch; every row was checked to be what its adapter gives alone."""
    for family, names in cases.MIXED.items():
        config, weights = cases.tiny_model(family)
        ids = _random_ids(config["vocab_size"], cases.SEEDS[family] + 100, (len(names), cases.NUM_TOKENS))
        with tempfile.TemporaryDirectory() as folder:
            model = load_hf(write_hf_folder(Path(folder), config, weights))
            for name in sorted(set(names) - {cases.BASE}):
                model = add_peft_adapter(model, name, _ADAPTERS[name], seed=len(name))
            logits = peft_mixed_logits(model, ids, names)
            for row, name in enumerate(names):
                alone = peft_mixed_logits(model, ids[row : row + 1], [name])[0]
                assert np.abs(alone - logits[row]).max() <= 1e-5, (family, name)
            _store_adapters(model, family, Path(folder) / "saved")
        rows = list(cases.MIXED_ROWS)
        _save(f"mixed_{family}", ids=ids, logits=logits[:, rows], weights_sha256=np.array(cases.checksum(weights)))


def _store_adapters(model: Any, family: Family, aside: Path) -> None:
    for peft_config in model.peft_config.values():
        peft_config.base_model_name_or_path = f"tiny-{family}"  # not the temporary folder
        if isinstance(peft_config.target_modules, set):  # in one order, so that a second run writes the same bytes
            peft_config.target_modules = sorted(peft_config.target_modules)
    model.save_pretrained(aside, save_embedding_layers=False)  # else PEFT looks the base up
    for name in model.peft_config:
        target = cases.adapter_folder(family, name)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copy(aside / name / file, target / file)
            (target / file).chmod(0o644)


def make_whole() -> None:
    """Adapters one by one, as PEFT computes with them once it has loaded the files that are stored."""
    for name, adapters in cases.WHOLE.items():
        config, weights = cases.untied_model() if name == "untied" else cases.tiny_model(name)
        ids = _random_ids(config["vocab_size"], len(name), (len(adapters), cases.NUM_TOKENS))
        ids[:, 1 : 1 + len(_MET)] = _MET
        with tempfile.TemporaryDirectory() as folder:
            base = write_hf_folder(Path(folder) / "base", config, weights)
            logits = []
            for row, adapter in enumerate(adapters):
                made, kept = Path(folder) / adapter, cases.adapter_folder(name, adapter)
                save_random_adapter(load_hf(base), made, _WHOLE[adapter], seed=row, save_embedding_layers=False)
                _store_adapter(made, kept, f"tiny-{name}")
                logits.append(peft_logits(load_hf(base), kept, ids[row])[list(cases.MIXED_ROWS)])
        _save(f"whole_{name}", ids=ids, logits=np.stack(logits), weights_sha256=np.array(cases.checksum(weights)))


def _store_adapter(made: Path, target: Path, base_name: str) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    settings = json.loads((made / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = base_name  # not the temporary folder
    settings["target_modules"] = sorted(settings["target_modules"])  # a set: a second run writes the same bytes
    (target / "adapter_config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    shutil.copy(made / "adapter_model.safetensors", target / "adapter_model.safetensors")
    (target / "adapter_model.safetensors").chmod(0o644)


def make_270m() -> None:
    """The default model on 700 tokens of the project's licence, and on one short prompt."""
    path = bundled_model_path(Settings().cache_path)
    tokenizer = load_tokenizer(path, cache_dir=None)
    licence = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    ids = np.array(tokenizer.encode(licence, add_bos=True)[:700], np.int32)
    short = np.array(tokenizer.encode("The capital of France is", add_bos=True), np.int32)
    model = load_hf_gguf(path, "gemma3")
    logits = hf_logits(model, ids)[list(cases.BIG_ROWS)]
    top_ids = np.argsort(-logits, axis=-1, kind="stable")[:, : cases.BIG_TOP].astype(np.int32)
    short_logits = hf_logits(model, short)[-1]
    short_top = np.argsort(-short_logits, kind="stable")[:5].astype(np.int32)
    _save(
        "gemma3_270m",
        ids=ids,
        columns=logits[:, :: cases.BIG_COLUMN_STEP],
        top_ids=top_ids,
        top_logits=np.take_along_axis(logits, top_ids, axis=-1),
        mean=logits.mean(axis=-1, dtype=np.float64),
        norm=np.sqrt(np.square(logits, dtype=np.float64).sum(axis=-1)),
        short_ids=short,
        short_top_ids=short_top,
        short_top_logits=short_logits[short_top],
    )


def _random_ids(vocab_size: int, seed: int, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """BOS, then any ids."""
    ids = np.random.default_rng(seed).integers(0, vocab_size, shape, dtype=np.int32)
    ids[..., 0] = 2
    return ids


def _save(name: str, **arrays: NDArray[Any]) -> None:
    file = cases.FOLDER / f"{name}.npz"
    np.savez_compressed(file, **arrays)
    largest = max(float(np.abs(values).max()) for key, values in arrays.items() if key in ("logits", "columns"))
    sys.stdout.write(f"{file.name}: {file.stat().st_size} bytes, largest logit {largest:.1f}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
