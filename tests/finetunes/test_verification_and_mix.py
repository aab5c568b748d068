"""What the engine says of an adapter is kept with it, and decides what it may be mixed with."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from intaglio.errors import AdapterError, BadInputError, FinetuneError, FinetuneNotFoundError
from intaglio.finetunes import FinetuneState, FinetuneStore
from intaglio.model.config import ModelConfig
from intaglio.request import ScaledAdapter, VerifiedAdapter
from tests.finetunes.conftest import (
    CONFIG,
    MODEL,
    VERIFICATION,
    WEIGHTS,
    OpenStore,
    add,
    add_both,
    create,
    stored_files,
    verifies,
)


def test_the_verifier_gets_the_pair_before_it_is_kept_and_its_verification_stays(
    data: Path, store: FinetuneStore, open_store: OpenStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    before = stored_files(data)
    asked: list[VerifiedAdapter] = []

    def verify(folder: str) -> VerifiedAdapter:
        asked.append(verifies(base_config)(folder))
        assert [path for path in stored_files(data) if "incoming" not in path.parts] == before
        found = store.find("acc", "mine")
        assert found.candidate is not None
        assert found.candidate.check is not None
        assert found.candidate.check.step == "verifying"
        return asked[-1]

    ready = add(store, adapter_folder / WEIGHTS, base_config, verify=verify)
    assert [adapter.digest for adapter in asked] == [ready.digest]
    again = open_store().find("acc", "mine")
    assert again.current is not None
    assert again.current.verification == VERIFICATION


def test_an_adapter_that_fails_verification_is_refused_with_the_reason(
    data: Path, store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    def unverified(_folder: str) -> VerifiedAdapter:
        raise AdapterError("the adapter changes nothing")

    create(store)
    add(store, adapter_folder / CONFIG, base_config)
    before = stored_files(data)
    with pytest.raises(AdapterError, match="changes nothing"):
        add(store, adapter_folder / WEIGHTS, base_config, verify=unverified)
    found = store.find("acc", "mine")
    assert (found.state, found.reason) == (FinetuneState.REFUSED, "the adapter changes nothing")
    assert stored_files(data) == before


def test_the_same_files_again_bring_the_newest_verification(
    store: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    better = msgspec.structs.replace(VERIFICATION, agreement=1.0)
    create(store)
    add_both(store, adapter_folder, base_config)
    add(store, adapter_folder / CONFIG, base_config)
    again = add(store, adapter_folder / WEIGHTS, base_config, verify=verifies(base_config, better))
    assert again.current is not None
    assert (again.current.number, again.current.verification) == (1, better)


@pytest.fixture
def three(store: FinetuneStore, adapter_folder: Path, new_folder: Path, base_config: ModelConfig) -> FinetuneStore:
    """`old` and `same` are one adapter, `new` is another."""
    for name, folder in (("old", adapter_folder), ("new", new_folder), ("same", adapter_folder)):
        create(store, name)
        add_both(store, folder, base_config, name)
    return store


def test_a_mix_is_sorted_by_digest_and_leaves_out_what_has_no_effect(three: FinetuneStore) -> None:
    old, new = (three.resolve("acc", name, MODEL) for name in ("old", "new"))
    expected = sorted([ScaledAdapter(old, 0.5), ScaledAdapter(new, -2.0)], key=lambda one: one.ref.digest)
    for asked in ([("old", 0.5), ("new", -2.0)], [("new", -2.0), ("old", 0.5)]):
        assert list(three.resolve_mix("acc", asked, MODEL)) == expected
    assert three.resolve_mix("acc", [("old", 0.0), ("new", 1.0)], MODEL) == (ScaledAdapter(new),)
    assert three.resolve_mix("acc", [("old", 0.0)], MODEL) == three.resolve_mix("acc", [], MODEL) == ()


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ([("old", 1.0), ("same", 0.5)], FinetuneError, "'old' and 'same' of this request are the same"),
        ([("old", 0.5), ("old", 0.5)], FinetuneError, "'old' and 'old' of this request are the same"),
        ([("old", 10.5)], BadInputError, "scale of adapter 'old' is 10.5, outside -10 to 10"),
        ([("old", float("nan"))], BadInputError, "scale of adapter 'old' is nan"),
        ([("old", 1.0)] * 9, BadInputError, "names 9 adapters; the limit is 8"),
        ([("new", 1.0), ("nobody", 0.0)], FinetuneNotFoundError, "Finetune nobody not found"),
    ],
)
def test_adapters_that_cannot_be_mixed_are_refused_by_name(
    three: FinetuneStore, asked: list[tuple[str, float]], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        three.resolve_mix("acc", asked, MODEL)


def test_an_adapter_that_replaces_parts_of_the_base_is_used_alone_at_scale_one(
    three: FinetuneStore, adapter_folder: Path, base_config: ModelConfig
) -> None:
    whole = msgspec.structs.replace(VERIFICATION, scalable=False)
    add(three, adapter_folder / CONFIG, base_config, "old")
    add(three, adapter_folder / WEIGHTS, base_config, "old", verify=verifies(base_config, whole))
    assert [one.scale for one in three.resolve_mix("acc", [("old", 1.0), ("new", 0.0)], MODEL)] == [1.0]
    for asked in ([("old", 0.5)], [("old", 1.0), ("new", 1.0)]):
        with pytest.raises(FinetuneError, match="'old' replaces parts of the base model"):
            three.resolve_mix("acc", asked, MODEL)
