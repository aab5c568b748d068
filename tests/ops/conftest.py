from __future__ import annotations

from collections.abc import Iterator

import pytest

from intaglio.ops import Ops
from intaglio.ops.cpu import CpuOps
from tests.ops.bodies import BODIES, KERNELS, body, shared_kernels


@pytest.fixture(params=BODIES, scope="module")
def ops(request: pytest.FixtureRequest) -> Iterator[Ops]:
    """Each body in turn; the kernels on two threads."""
    yield body(request.param)


@pytest.fixture(params=KERNELS, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[CpuOps]:
    """The C++ backend alone, with each instruction set that is tested."""
    yield CpuOps(2, request.param)


@pytest.fixture(scope="session", autouse=True)
def end_of_shared_kernels() -> Iterator[None]:
    """Their threads end with the last test here."""
    yield
    shared_kernels.cache_clear()
