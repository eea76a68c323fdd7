"""The gateway of the scenario, as this machine reaches it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import testinfra

INVENTORY = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).resolve() / "inventory"


@pytest.fixture(scope="session")
def door() -> str:
    """Address of the front door."""
    variables = testinfra.get_host("ansible://lab3").ansible.get_variables()
    return f"http://{variables['ansible_host']}:4000"


@pytest.fixture(scope="session")
def key() -> str:
    return (INVENTORY / ".credentials/LITELLM_MASTER_KEY").read_text(encoding="utf-8").strip()
