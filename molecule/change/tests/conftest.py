"""The host that is changed, and its front door."""

from __future__ import annotations

from typing import Any

import pytest
import testinfra


@pytest.fixture(scope="module")
def one() -> Any:
    return testinfra.get_host("ansible://one")


@pytest.fixture(scope="module")
def door(one: Any) -> str:
    """Address of the front door, as this machine reaches it."""
    return f"http://{one.ansible.get_variables()['ansible_host']}:4000"
