"""What holds for every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Timing is for benchmarks: a slow machine is no reason to fail. In CI the examples are the same on every run.
settings.register_profile(
    "intaglio", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("intaglio")
