"""If the packages of the extra `train` are missing, the message says how to install them."""

from __future__ import annotations

import importlib.machinery
import importlib.util

import pytest

from intaglio.errors import TrainingError
from intaglio.training.run import PACKAGES, check_installed


def test_a_missing_package_is_named_with_both_install_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {name: importlib.util.find_spec("json") for name in PACKAGES} | {"peft": None}
    monkeypatch.setattr(importlib.util, "find_spec", specs.__getitem__)
    with pytest.raises(TrainingError) as refused:
        check_installed()
    said = str(refused.value)
    assert said.startswith("training needs peft, not installed here")
    assert said.index("pip install torch==2.13.0") < said.index("pip install 'intaglio[train]'")


def test_nothing_is_raised_if_every_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    check_installed()
