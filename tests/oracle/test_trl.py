"""Adapters that TRL's SFTTrainer trains and saves are read, and compute what PEFT computes with the saved files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.lora.peft.reader import AdapterLimits, read_peft_adapter
from intaglio.model.loader import load_gemma
from intaglio.ops.reference import ReferenceOps
from tests.golden import cases
from tests.helpers.checkpoints import random_weights, tiny_config, write_hf_folder
from tests.helpers.forward import Prompt, run_prompts
from tests.helpers.tokenizers import tiny_pieces, write_tokenizer_json
from tests.oracle.transformers_peft import load_hf, peft_logits

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

IDS = np.asarray([2, 100, 330, 411, 17, 300, 255, 90, 444], np.int32)
TEXTS = ["the quick brown fox jumps over the lazy dog", "the user asks the model what the weather will be"]

SETTINGS: dict[str, dict[str, Any]] = {
    "nothing set": {},
    "all linear, DoRA": {"target_modules": "all-linear", "use_dora": True, "r": 4},
    "rsLoRA and a trained table": {
        "target_modules": ["q_proj"],
        "use_rslora": True,
        "modules_to_save": ["embed_tokens"],
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Gemma 3 with a tokenizer."""
    config = tiny_config("gemma3_text", vocab_size=512, num_hidden_layers=7)
    made = write_hf_folder(tmp_path_factory.mktemp("base"), config, random_weights(config))
    write_tokenizer_json(made / "tokenizer.json", tiny_pieces(512))
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (made / "tokenizer_config.json").write_text(json.dumps(settings))
    return made


def train(base: Path, folder: Path, settings: dict[str, Any]) -> None:
    """Train two steps and save into `folder`."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        processing_class=PreTrainedTokenizerFast.from_pretrained(base),
        train_dataset=Dataset.from_list([{"text": text} for text in TEXTS] * 4),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **settings),
        args=SFTConfig(
            output_dir=str(folder), max_steps=2, per_device_train_batch_size=2, learning_rate=0.01, use_cpu=True,
            bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.train()
    trainer.save_model(str(folder))


@pytest.mark.parametrize("settings", SETTINGS)
def test_what_trl_trained_and_saved_computes_here_what_it_computes_there(
    tmp_path: Path, folder: Path, settings: str
) -> None:
    train(folder, tmp_path, SETTINGS[settings])
    expected = peft_logits(load_hf(folder), tmp_path, IDS)
    base = load_gemma(folder, ReferenceOps(), "f32")
    adapter = read_peft_adapter(tmp_path, base.config, AdapterLimits())
    plain, ours = run_prompts(base, [Prompt(IDS.tolist()), Prompt(IDS.tolist(), adapter.tensors)])
    tolerance = cases.tiny_tolerance(expected)
    assert np.abs(plain - expected).max() > 100 * tolerance, "the training changed the logits"
    assert np.abs(ours - expected).max() <= tolerance
