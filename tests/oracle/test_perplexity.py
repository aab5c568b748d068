"""Perplexity against transformers, live, as its guide "Perplexity of fixed-length models" computes it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from intaglio.evaluation.evaluate import TokenizedText, Windowing, evaluate
from intaglio.evaluation.subject import Subject
from intaglio.model.loader import load_gemma
from intaglio.ops.cpu import CpuOps
from tests.helpers.checkpoints import FAMILIES, Family, random_weights, tiny_config, write_hf_folder
from tests.oracle.transformers_peft import load_hf

# Warnings come from torch and transformers.
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

BOS, LENGTH, STRIDE = 2, 33, 12


@pytest.mark.parametrize("family", FAMILIES)
def test_perplexity_equals_that_of_transformers_over_sliding_windows(tmp_path: Path, family: Family) -> None:
    """The loss is that of transformers: labels of -100 leave out what an earlier window scored."""
    import torch

    config = tiny_config(family)
    folder = write_hf_folder(tmp_path, config, random_weights(config, 8))
    ids = np.random.default_rng(1).integers(3, config["vocab_size"], 100).tolist()
    peer, total, end = load_hf(folder), 0.0, 0
    for begin in range(0, len(ids), STRIDE):
        stop = min(begin + LENGTH, len(ids))
        inputs = torch.tensor([[BOS, *ids[begin:stop]]])
        labels = inputs.clone()
        labels[:, : 1 + end - begin] = -100
        with torch.no_grad():
            total += float(peer(inputs, labels=labels).loss) * (stop - end)
        end = stop
        if stop == len(ids):
            break
    ops = CpuOps(1)
    subject = Subject("ours", load_gemma(folder, ops, "f32"), ops)
    text, vocab_size = TokenizedText("text", ids), config["vocab_size"]
    found = evaluate([text], subject, None, Windowing(LENGTH, STRIDE), bos_id=BOS, vocab_size=vocab_size)
    assert found.total.evaluated.loss == pytest.approx(total / len(ids), rel=1e-5)
    assert found.total.evaluated.perplexity == pytest.approx(math.exp(total / len(ids)), rel=1e-4)
