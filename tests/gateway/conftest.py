"""The gateway's environment, a network of the tests' own, recording stubs in it; tables of what was
observed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import front_end
import harness
from stubs import Stubs
from tables import Tables

TABLES = pytest.StashKey[Tables]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that brings docs/gateway.md up to date."""
    parser.addoption(
        "--write-tables", action="store_true", help="write the observed tables into docs/gateway.md"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Begin without tables."""
    config.stash[TABLES] = Tables(write=bool(config.getoption("--write-tables")))


LONGEST = (
    "test_workers",
    "test_faults_of_requests",
    "test_limits",
    "test_redis",
    "test_wrong",
    "test_rpm",
)
"""Files that take longest: they begin first, so that no core is left with one of them alone at the
end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file stays."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what was observed."""
    for name, table in config.stash[TABLES].observed.items():
        terminalreporter.section(name)
        terminalreporter.write_line(table)


@pytest.fixture(scope="session")
def tables(request: pytest.FixtureRequest) -> Tables:
    """Return the tables of this run."""
    return request.config.stash[TABLES]


@pytest.fixture(scope="session")
def environment() -> Path:
    """Return the gateway's virtual environment."""
    return harness.environment()


@pytest.fixture(scope="session")
def stubs(environment: Path) -> Iterator[Stubs]:
    """Yield the stubs' network. The environment and HAProxy come first: to get them takes the world
    outside."""
    front_end.command()
    harness.isolate()
    with Stubs() as network:
        yield network
