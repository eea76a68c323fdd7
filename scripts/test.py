#!/usr/bin/env python3
"""Run the tests and say what was run.

usage: scripts/test.py [--full] [NAME...]

A name is `lint`, `unit`, `cuda`, `gateway`, `lab` or a molecule scenario; without names all run, the cheap first, and
at the end, two at a time, the scenarios that mostly wait. Every step runs even if an earlier one failed. The exit
status is 0 only if everything passed. With --full those tests run, too, that take minutes and concern little.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".cache/test"

LINT = {
    "ansible-lint": ["ansible-lint", "--offline", "-q"],
    "yamllint": ["yamllint", "--strict", "."],
    "ruff": ["ruff", "check", "--quiet", "."],
    "ruff format": ["ruff", "format", "--check", "--quiet", "."],
    "mypy": ["mypy"],
}

COMPLAINT = re.compile(r"(fatal|failed): \[|FAILED |ERROR |E   |lab: |error|Error|Traceback")
"""How a line begins that tells why a step failed: Ansible's, pytest's, the lab's, a compiler's."""
EXPLAINED = 20
"""How many lines after it belong to it: Ansible prints a result over several."""

WAITING = (
    "change",
    "monitoring",
    "exporter",
    "ollama",
    "firewall",
    "llama_cpp_python",
    "alertmanager",
    "grafana",
    "prometheus",
    "redis",
    "haproxy",
)
"""Scenarios that wait more than they compute, the longest first. They run last: others build what they use."""

APART_S = 10
"""Seconds between the beginnings of two scenarios that run together, so that not both boot hosts at once."""


@dataclass
class Outcome:
    """What one step did."""

    name: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    complaints: deque[str] = field(default_factory=lambda: deque(maxlen=2 * EXPLAINED))
    """The last lines of its output that look like a reason to fail."""


def run(name: str, command: list[str], environment: dict[str, str] | None = None, together: bool = False) -> Outcome:
    """Run one command; it counts as one test. Its output comes as it is, at its end where two run together."""
    outcome = Outcome(name, 0)
    title = f"\n=== {name}: {' '.join(command)}"
    if not together:
        print(title, flush=True)
    output = []
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # it is a pipe
        wanted = 0
        for line in process.stdout:
            wanted = EXPLAINED if COMPLAINT.match(line) else max(wanted - 1, 0)
            if wanted:
                outcome.complaints.append(line.rstrip()[:400])
            if together:
                output.append(line)
            else:
                print(line, end="", flush=True)
    if together:
        print(f"{title}\n{''.join(output)}", flush=True)
    outcome.seconds = time.monotonic() - started
    outcome.passed, outcome.failed = int(process.returncode == 0), int(process.returncode != 0)
    return outcome


def with_cases(outcome: Outcome, report: Path) -> Outcome:
    """Replace the one test of a pytest run by those in its JUnit report; no report means failed."""
    if not report.exists():
        return replace(outcome, passed=0, failed=1)
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        # pytest can fail without a failed test, for example when it collected none.
        failed = max(failed, outcome.failed)
        return replace(outcome, passed=max(total - failed - skipped, 0), failed=failed, skipped=skipped)
    return outcome


def run_pytest(name: str, *arguments: str) -> Outcome:
    """Run pytest; count its tests."""
    report = RESULTS / f"{name}.xml"
    return with_cases(run(name, ["pytest", "-q", f"--junitxml={report}", *arguments]), report)


def run_scenario(name: str, full: bool, together: bool = False) -> Outcome:
    """Run a molecule scenario; its sequence counts as one test, and each of its testinfra tests as one."""
    report = RESULTS / f"molecule-{name}.xml"
    environment = {
        "PYTEST_ADDOPTS": f"--junitxml={report}" + ("" if full else " -m 'not full'"),
        "MOLECULE_COMMAND_BORDERS": "false",
        # Molecule names its directories after the clone's last path component only.
        "ANSIBLE_HOME": str(ROOT / ".ansible"),
    }
    sequence = run(f"molecule {name}", ["molecule", "test", "--scenario-name", name], environment, together)
    if report.exists():
        cases = with_cases(Outcome(sequence.name, sequence.seconds), report)
        sequence.passed += cases.passed
        sequence.failed += cases.failed
        sequence.skipped += cases.skipped
    return sequence


def scenarios() -> list[str]:
    """Return molecule's scenarios; those that need many roles come last."""
    names = (path.parent.name for path in ROOT.glob("molecule/*/molecule.yml"))
    return sorted(names, key=lambda name: (name in ("site", "engines"), name))


def main() -> int:
    """Run what was asked for and print the summary."""
    known = ["lint", "unit", "cuda", "gateway", "lab", *(name for name in scenarios() if name != "lab")]
    full = "--full" in sys.argv[1:]
    chosen = [name for name in sys.argv[1:] if name != "--full"] or known
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        print(f"no tests named {', '.join(unknown)}. There are: {', '.join(known)}", file=sys.stderr)
        return 2
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.xml"):
        old.unlink()
    outcomes = []
    waiting = [name for name in WAITING if name in chosen]
    for name in (one for one in chosen if one not in waiting):
        if name == "lint":
            outcomes += [run(tool, command) for tool, command in LINT.items()]
        elif name == "unit":
            outcomes.append(run_pytest("unit", "tests", "-n", "2"))
        elif name == "gateway":
            # Each file has gateways of its own, in a network of its process' own.
            outcomes.append(run_pytest(name, "tests/gateway", "-n", "2", "--dist", "loadfile"))
        elif name == "cuda":
            outcomes.append(run_pytest(name, "tests/cuda"))
        elif name == "lab":
            outcomes.append(run_pytest("lab", "tests/lab"))
            outcomes.append(run_scenario("lab", full))
        else:
            outcomes.append(run_scenario(name, full))
    with ThreadPoolExecutor(2) as pool:
        running = []
        for name in waiting:
            running.append(pool.submit(run_scenario, name, full, together=len(waiting) > 1))
            # Of two that began in the same moment one failed in CI while its hosts were made; the cause was not found.
            time.sleep(APART_S if len(waiting) > 1 else 0)
        outcomes += [one.result() for one in running]
    print("\n=== summary")
    for outcome in outcomes:
        numbers = f"{outcome.passed:5} passed {outcome.failed:5} failed {outcome.skipped:5} skipped"
        print(f"{outcome.name:20} {numbers} {outcome.seconds:7.0f} s")
    passed, failed, skipped = (sum(getattr(one, key) for one in outcomes) for key in ("passed", "failed", "skipped"))
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    for outcome in outcomes:
        if outcome.failed:
            print(f"=== {outcome.name} failed. What its output says of that:", *outcome.complaints, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
