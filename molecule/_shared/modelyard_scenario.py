"""A pytest plugin for all scenarios: a failed test shows the end of its host's journal."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add the journal to the report of a failed test."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        journal = host.run("journalctl --no-pager --lines=60 --output=short-iso")
        failed = host.run("systemctl --failed --plain --no-legend")
        name = host.backend.get_hostname()
        report.sections.append((f"journal of {name}", f"{journal.stdout}\nfailed units:\n{failed.stdout or 'none'}"))
    return report
