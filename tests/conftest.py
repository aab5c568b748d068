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

from intaglio.ops.cpu import instruction_sets
from intaglio.settings import PREFIX, Kernels
from tests.helpers.postgresql import PostgresqlServer, server_programs

# No deadlines: a slow machine must not fail a test. Cases are the same on every run, since chance must not decide
# whether a commit passes; `make test-random` draws new ones and prints how to repeat a failure. The default suite draws
# a third as many cases as the others: see tests/helpers/drawn_cases.py. No profile stores cases between runs.
settings.register_profile(
    "fixed", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.register_profile("random", settings.get_profile("fixed"), derandomize=False, print_blob=True)
settings.register_profile("quick", settings.get_profile("fixed"), max_examples=33)
settings.load_profile("quick")

# A developer's own settings (a database, a token) must not reach the tests. What --kernels sets may, and so may the
# folder of the packed model.
for variable in [name for name in os.environ if name.startswith(PREFIX)]:
    if variable not in (f"{PREFIX}KERNELS", f"{PREFIX}CACHE_DIR"):
        del os.environ[variable]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kernels` and export its value at once: conftest files imported later, pytest-xdist's processes and the
    servers that tests start all read it from the environment.
    """
    sets = get_args(Kernels)
    parser.addoption("--kernels", choices=sets, help="what the tests compute with; see tests/helpers/kernels.py")
    chosen = parser.parse_known_args(sys.argv[1:]).kernels
    if chosen is not None:
        os.environ[f"{PREFIX}KERNELS"] = chosen


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a parameter of bytes by its length.

    pytest-xdist wants the same names in each of its processes, and the content of a file that a test module makes (an
    archive with the time in it) need not be the same twice.
    """
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.hookimpl(trylast=True)  # hypothesis chooses its profile in a hook of the same name
def pytest_configure(config: pytest.Config) -> None:
    """With the fixed profile, keep hypothesis from drawing constants that it finds in our source files.

    By default it collects them from the loaded modules, even when derandomized: a constant added to one file would
    change the cases of every test. There is no setting for it; `tests/test_fixed_cases.py` checks it.
    """
    chosen = config.getoption("kernels")
    known = ("auto", "reference", *instruction_sets())
    if chosen is not None and chosen not in known:
        raise pytest.UsageError(f"--kernels {chosen}: this machine has {', '.join(known)}")
    if chosen not in (None, os.environ.get(f"{PREFIX}KERNELS")):
        raise pytest.UsageError("--kernels must be given on the command line, not in PYTEST_ADDOPTS or addopts")
    if settings().derandomize and hasattr(providers, "_get_local_constants"):
        providers._get_local_constants = providers.Constants


gc.disable()  # until the tests are collected: what collection creates lives until the end


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist's, which runs all tests; its controller collects none itself
def pytest_runtestloop() -> None:
    """Exclude the thousands of collected tests from garbage collection; each full collection would traverse them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # collections after every 700 objects take some 4 % of the time
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
