"""A pytest plugin for all scenarios: a failed test shows its host's journal, and what was measured
is printed."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest

_MEASURED: list[str] = []


@pytest.fixture
def measured() -> Callable[[str], None]:
    """Note a figure. All are printed at the end, passed or not: a log without them would only
    claim."""
    return _MEASURED.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    if _MEASURED:
        terminalreporter.section("measured")
        for line in _MEASURED:
            terminalreporter.write_line(line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Add the journal to the report of a failed test."""
    report = yield
    host = getattr(item, "funcargs", {}).get("host")
    if report.failed and host is not None:
        journal = host.run("journalctl --no-pager --lines=60 --output=short-iso")
        failed = host.run("systemctl --failed --plain --no-legend")
        name = host.backend.get_hostname()
        report.sections.append(
            (f"journal of {name}", f"{journal.stdout}\nfailed units:\n{failed.stdout or 'none'}")
        )
    return report
