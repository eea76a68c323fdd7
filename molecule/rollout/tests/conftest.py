"""The gateways, and a site on which everything serves before and after each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from rolling import (
    ENGINES,
    GATEWAYS,
    Row,
    Seen,
    address,
    pools,
    runs_what_is_live,
    wait_until,
    whole,
)


@pytest.fixture(scope="session")
def doors() -> dict[str, str]:
    """The gateways' front doors, as this machine reaches them."""
    return {name: f"http://{address(name)}:4000" for name in GATEWAYS}


@pytest.fixture
def row(measured: Callable[[str], None]) -> Row:
    """Add a row to the table that is printed at the end."""

    def add(what: str, seconds: float, seen: Seen | str) -> None:
        measured(f"{what:<76}  {seconds:6.1f} s  {seen}")

    return add


@pytest.fixture(autouse=True)
def everything_serves() -> Iterator[None]:
    yield
    wait_until(whole, f"not every host serves: {pools()}", 180)
    assert all(runs_what_is_live(name) for name in ENGINES)
