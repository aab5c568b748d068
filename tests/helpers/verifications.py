"""A constant verification, for tests that store and read one."""

from __future__ import annotations

from intaglio.request import Verification

VERIFICATION = Verification(
    num_modules=7,
    rank=4,
    scalable=True,
    largest_change=1.5,
    mean_change=0.25,
    agreement=0.9999,
    num_tokens=64,
    seconds=0.5,
)
