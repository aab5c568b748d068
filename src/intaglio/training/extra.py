"""Whether the packages of the extra `train` are installed."""

from __future__ import annotations

import importlib.util

from intaglio.errors import TrainingError

PACKAGES = ("torch", "transformers", "peft", "accelerate")


def check_installed() -> None:
    """Look for the packages without importing them. Raises TrainingError that says how to install them."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(
            f"training needs {', '.join(missing)}, not installed here: run `pip install torch==2.13.0` first and "
            "alone (so that pip takes the build for the CPU where one is offered), then `pip install 'intaglio[train]'`"
        )
