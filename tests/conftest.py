"""What holds for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.postgresql import PostgresqlServer, server_programs

# Timing is for benchmarks: a slow machine is no reason to fail. In CI the examples are the same on every run.
settings.register_profile(
    "intaglio", deadline=None, derandomize="CI" in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("intaglio")


def pytest_collection_finish() -> None:
    """Thousands of collected tests stay to the end: without this, each full garbage collection walks all of them."""
    gc.collect()
    gc.freeze()


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
