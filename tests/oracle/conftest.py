"""What holds for every comparison with torch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """The models are tiny: threads wait for each other at every product, for longer than the product takes."""
    import torch

    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
