"""What holds for every test."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import get_args

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from intaglio.settings import PREFIX, Kernels
from tests.helpers.postgresql import PostgresqlServer, server_programs

# Timing is for benchmarks: a slow machine is no reason to fail. The cases of a test are the same on every run, since
# chance must not decide whether a commit passes; `make test-random` draws new ones and prints for each failure what
# repeats it. Neither keeps cases from one run for the next.
settings.register_profile(
    "fixed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.register_profile("random", settings.get_profile("fixed"), derandomize=False, print_blob=True)
settings.load_profile("fixed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--kernels`, whose value goes into the environment at once: conftest files that are imported next depend on it,
    and so do the processes of pytest-xdist and the servers that tests start.
    """
    sets = get_args(Kernels)
    parser.addoption("--kernels", choices=sets, help="what the tests compute with; see tests/helpers/kernels.py")
    chosen = parser.parse_known_args(sys.argv[1:]).kernels
    if chosen is not None:
        os.environ[f"{PREFIX}KERNELS"] = chosen


@pytest.hookimpl(trylast=True)  # hypothesis chooses its profile in a hook of the same name
def pytest_configure() -> None:
    """Keep hypothesis from drawing numbers and strings of our source files, where cases are to stay the same.

    By default it does, derandomized or not, from whatever modules are loaded by then: a constant that is added to one
    file would change the cases of every test. There is no setting for it; `tests/test_fixed_cases.py` checks it.
    """
    if settings().derandomize and hasattr(providers, "_get_local_constants"):
        providers._get_local_constants = providers.Constants


gc.disable()  # up to the end of the collection of tests: what it makes stays


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: without this, each full garbage collection walks all of them."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """A running PostgreSQL, started when the first test needs it."""
    programs = server_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    server = PostgresqlServer(programs)
    server.start()
    yield server
    server.stop()
    server.remove()


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> str:
    """URL of a database of the test's own."""
    return postgresql_server.new_database()
