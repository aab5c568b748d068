"""Runs the functions of an example one after the other and prints what they returned, as one line of JSON."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any


def report(*functions: Callable[[], Any]) -> None:
    """Print {name of the function: {"value": what it returned} or {"error": traceback}}."""
    outcomes = {function.__name__: _outcome(function) for function in functions}
    sys.stdout.write(json.dumps(outcomes) + "\n")


def _outcome(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": function()}
    except Exception:  # noqa: BLE001 - the test reports the error, and the next function still runs
        return {"error": traceback.format_exc()}
