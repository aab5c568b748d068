"""The golden comparison reveals each fault of `mutations`: it changes the logits by far more than the tolerance.

`pytest tests/model/test_mutations.py -rP` prints the difference that each fault causes; docs/accuracy.md has the table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from intaglio.model.bundled import bundled_model_path
from intaglio.settings import Settings
from tests.golden import cases
from tests.golden.models import Parts, gguf_parts, golden_adapters, tiny_parts
from tests.helpers.checkpoints import FAMILIES, Family
from tests.helpers.forward import Prompt, run_prompts
from tests.model.mutations import LORA_MUTATIONS, MUTATIONS, MUTATIONS_270M, LoraMutation, Mutation

MARGIN = 10  # a fault must be this many times the tolerance away


def check_revealed(name: str, distance: float, tolerance: float, known: float | None) -> None:
    expected = "" if known is None else f" (known: {known:g})"
    sys.stdout.write(f"{name}: max abs {distance:.3g}{expected}, tolerance {tolerance:.1g}\n")
    assert distance > MARGIN * tolerance, f"{name} moves the logits by only {distance}"


@pytest.fixture(scope="module")
def tiny() -> dict[str, Parts]:
    return {family: tiny_parts(family) for family in FAMILIES}


@pytest.mark.parametrize(
    ("family", "mutation"),
    [pytest.param(family, m, id=f"{family}: {m.name}") for family in FAMILIES for m in MUTATIONS[family]],
)
def test_the_golden_logits_reveal_each_fault(tiny: dict[str, Parts], family: Family, mutation: Mutation) -> None:
    golden = cases.load(f"tiny_{family}")
    model = tiny[family].build(mutation.change, mutation.new_ops(), mutation.norm_includes_one)
    (logits,) = run_prompts(model, [Prompt(golden["ids"].tolist())], ops=mutation.new_ops())
    distance = float(np.abs(logits - golden["logits"]).max())
    check_revealed(mutation.name, distance, cases.tiny_tolerance(golden["logits"]), mutation.known)


@pytest.mark.parametrize("family", list(cases.MIXED))
@pytest.mark.parametrize("mutation", LORA_MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_golden_adapters_reveal_each_fault(
    tiny: dict[str, Parts], tmp_path: Path, family: Family, mutation: LoraMutation
) -> None:
    golden, row = cases.load(f"mixed_{family}"), cases.MIXED[family].index("rs_patterns")
    pairs = mutation.read(cases.adapter_folder(family, "rs_patterns"), tmp_path, tiny[family].config)
    prompt = Prompt(golden["ids"][row].tolist(), pairs)
    (logits,) = run_prompts(tiny[family].build(), [prompt], wanted=cases.MIXED_ROWS)
    expected = golden["logits"][row]
    distance = float(np.abs(logits - expected).max())
    check_revealed(mutation.name, distance, cases.tiny_tolerance(expected), mutation.known)


@pytest.mark.parametrize("family", list(cases.MIXED))
def test_every_row_of_the_mixed_batch_reveals_another_rows_adapter(tiny: dict[str, Parts], family: Family) -> None:
    golden, names = cases.load(f"mixed_{family}"), cases.MIXED[family]
    adapters = golden_adapters(family, tiny[family].config)
    wrong = names[2:] + names[:2]  # no row gets its own adapter
    prompts = [Prompt(ids.tolist(), adapters[name]) for ids, name in zip(golden["ids"], wrong, strict=True)]
    logits = run_prompts(tiny[family].build(), prompts, wanted=cases.MIXED_ROWS)
    for name, ours, theirs in zip(names, logits, golden["logits"], strict=True):
        distance = float(np.abs(ours - theirs).max())
        check_revealed(f"{name} with another row's adapter", distance, cases.tiny_tolerance(theirs), None)


# -------------------------------------------------------------------------------------------------- the real 270M

_NUM_ROWS = 5  # rows 5 to 513, for which 514 tokens are enough


@pytest.fixture(scope="module")
def real() -> Iterator[Parts]:
    yield gguf_parts(bundled_model_path(Settings().cache_path))


def distance_270m(parts: Parts, **changes: Any) -> float:
    golden, rows = cases.load("gemma3_270m"), cases.BIG_ROWS[:_NUM_ROWS]
    prompt = Prompt(golden["ids"][: rows[-1] + 1].tolist())
    (logits,) = run_prompts(parts.build(**changes), [prompt], wanted=rows, block_size=16)
    return cases.big_distance(logits, golden, _NUM_ROWS)


@pytest.mark.slow
def test_the_real_270m_without_a_fault_passes(real: Parts) -> None:
    assert distance_270m(real) <= cases.BIG_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS_270M, ids=lambda mutation: mutation.name)
def test_the_real_270m_reveals_each_fault(real: Parts, mutation: Mutation) -> None:
    distance = distance_270m(real, change=mutation.change, norm_includes_one=mutation.norm_includes_one)
    check_revealed(mutation.name, distance, cases.BIG_TOLERANCE, mutation.known)
