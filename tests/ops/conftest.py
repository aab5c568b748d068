from __future__ import annotations

from collections.abc import Iterator

import pytest

from intaglio.ops import Ops
from intaglio.ops.cpu import CpuOps
from tests.ops.backends import BACKENDS, KERNELS, backend, shared_kernels


@pytest.fixture(params=BACKENDS, scope="module")
def ops(request: pytest.FixtureRequest) -> Iterator[Ops]:
    """Each backend in turn; the kernels on two threads."""
    yield backend(request.param)


@pytest.fixture(params=KERNELS, scope="module")
def kernels(request: pytest.FixtureRequest) -> Iterator[CpuOps]:
    """The C++ backend alone, with each instruction set that is tested."""
    yield CpuOps(2, request.param)


@pytest.fixture(scope="session", autouse=True)
def end_of_shared_kernels() -> Iterator[None]:
    """Their threads end with the last test here."""
    yield
    shared_kernels.cache_clear()
