#!/usr/bin/env python3
"""Run the tests and say what was run.

usage: scripts/test.py [--full] [NAME...]

A name is `lint`, `unit`, `gateway`, `lab`, `cuda` or a molecule scenario. Without names everything
runs: first what is quick, then the scenarios, three at a time. Every step runs even if an earlier
one failed; the exit status is 0 only if everything passed. `--full` adds what takes minutes and
concerns little: `cuda`, and the tests marked `full`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
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

LANES = 3
"""How many scenarios run at a time on two cores: a quarter of its time one waits, for packages,
starts and clocks."""

LONGEST = (
    "llama_cpp",
    "litellm",
    "engines",
    "change",
    "rollout",
    "site",
    "ollama",
    "new_engine",
    "vllm",
    "monitoring",
    "exporter",
)
"""Scenarios that begin first: the two that build what others use, then the longest."""

BUILT = Path(os.environ.get("MODELYARD_CACHE", Path.home() / ".cache/modelyard")) / "artifacts"
"""What earlier runs built; without it a run is a cold one."""

FILTERED = "not full"
"""pytest's expression for what `make test` runs; `make test-full` runs all."""

BUDGET_MIN = {"warm": 30, "cold": 50, "full": 90}
"""Minutes that a run of everything may take on two cores. Printed beside what it took; nothing
fails because of it."""

APART_S = 10
"""Seconds between the beginnings of two scenarios that run together, so that not both boot hosts at
once."""


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


def run(name: str, command: list[str], environment: dict[str, str] | None = None) -> Outcome:
    """Run one command; it counts as one test.

    Its output comes as a whole, at its end: another may run beside it.
    """
    outcome = Outcome(name, 0)
    output = []
    started = time.monotonic()
    print(f"--- {time.strftime('%H:%M:%S')} {name} begins", flush=True)
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
            output.append(line)
    outcome.seconds = time.monotonic() - started
    outcome.passed, outcome.failed = int(process.returncode == 0), int(process.returncode != 0)
    ended = (
        f"{time.strftime('%H:%M:%S')} {name} {'failed' if outcome.failed else 'passed'} in"
        f" {outcome.seconds:.0f} s"
    )
    print(f"\n=== {name}: {' '.join(command)}\n{''.join(output)}--- {ended}", flush=True)
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
        return replace(
            outcome, passed=max(total - failed - skipped, 0), failed=failed, skipped=skipped
        )
    return outcome


def run_pytest(name: str, full: bool, *arguments: str) -> Outcome:
    """Run pytest; count its tests."""
    report = RESULTS / f"{name}.xml"
    marked = ["--hypothesis-profile=full"] if full else ["-m", FILTERED]
    return with_cases(
        run(name, ["pytest", "-q", f"--junitxml={report}", *marked, *arguments]), report
    )


def run_scenario(name: str, full: bool) -> Outcome:
    """Run a molecule scenario; its sequence counts as one test, and each of its testinfra tests as
    one.
    """
    report = RESULTS / f"molecule-{name}.xml"
    environment = {
        "PYTEST_ADDOPTS": f"--junitxml={report}" + ("" if full else f" -m '{FILTERED}'"),
        "MOLECULE_COMMAND_BORDERS": "false",
        # Molecule names its directories after the clone's last path component only.
        "ANSIBLE_HOME": str(ROOT / ".ansible"),
    }
    sequence = run(f"molecule {name}", ["molecule", "test", "--scenario-name", name], environment)
    if report.exists():
        cases = with_cases(Outcome(sequence.name, sequence.seconds), report)
        sequence.passed += cases.passed
        sequence.failed += cases.failed
        sequence.skipped += cases.skipped
    return sequence


def scenarios() -> list[str]:
    """Return molecule's scenarios in the order in which they begin: those named in LONGEST, then
    the others.
    """
    names = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    return [*LONGEST, *sorted(names - set(LONGEST))]


def side_by_side(
    steps: list[Callable[[], Outcome]], lanes: int, apart_s: float = 0
) -> list[Outcome]:
    """Run so many steps at a time, in their order; `apart_s`: seconds between the beginnings of
    two.
    """
    with ThreadPoolExecutor(lanes) as pool:
        running = []
        for step in steps:
            running.append(pool.submit(step))
            time.sleep(apart_s if len(steps) > 1 else 0)
        return [one.result() for one in running]


def run_chosen(chosen: list[str], full: bool) -> list[Outcome]:
    """Run what was chosen: the cheap first, the tests that measure time without another step, then
    the scenarios.
    """
    quick: list[Callable[[], Outcome]] = []
    if "lint" in chosen:
        quick += [partial(run, tool, command) for tool, command in LINT.items()]
    if "unit" in chosen:
        quick.insert(0, partial(run_pytest, "unit", full, "tests", "-n", "2"))
    outcomes = side_by_side(quick, 2)
    if "gateway" in chosen:
        # Each file has gateways of its own, in a network of its process' own. Cool-downs and
        # time-outs are waited for: two processes kept 1.1 of two cores busy (328 s; three: 250 s).
        order = ["--dist", "loadfile", "--no-loadscope-reorder"]
        outcomes.append(run_pytest("gateway", full, "tests/gateway", "-n", "3", *order))
    apart: list[Callable[[], Outcome]] = []
    if "cuda" in chosen:
        apart.append(partial(run_pytest, "cuda", full, "tests/cuda"))
    for name in scenarios():
        if name in chosen:
            apart.append(partial(run_scenario, name, full))
    if "lab" in chosen:
        apart.append(partial(run_pytest, "lab", full, "tests/lab"))
    return outcomes + side_by_side(apart, LANES, APART_S)


def print_summary(outcomes: list[Outcome], seconds: float, budget: str | None) -> int:
    """Print what ran, how long, and why something failed; returns how many tests failed."""
    print("\n=== summary")
    for outcome in outcomes:
        numbers = f"{outcome.passed:5} passed {outcome.failed:5} failed {outcome.skipped:5} skipped"
        print(f"{outcome.name:22} {numbers} {outcome.seconds:7.0f} s")
    passed, failed, skipped = (
        sum(getattr(one, key) for one in outcomes) for key in ("passed", "failed", "skipped")
    )
    slowest = sorted(outcomes, key=lambda one: one.seconds, reverse=True)[:5]
    print("slowest:", ", ".join(f"{one.name} {one.seconds / 60:.1f} min" for one in slowest))
    if budget:
        print(
            f"took {seconds / 60:.1f} min; the budget of a {budget} run is {BUDGET_MIN[budget]} min"
        )
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    for outcome in outcomes:
        if outcome.failed:
            print(
                f"=== {outcome.name} failed. What its output says of that:",
                *outcome.complaints,
                sep="\n  ",
            )
    return failed


def main() -> int:
    """Run what was asked for and print the summary."""
    full = "--full" in sys.argv[1:]
    known = ["lint", "unit", "gateway", *scenarios(), "cuda"]
    chosen = [name for name in sys.argv[1:] if name != "--full"]
    unknown = sorted(set(chosen) - set(known))
    if unknown:
        print(
            f"no tests named {', '.join(unknown)}. There are: {', '.join(known)}", file=sys.stderr
        )
        return 2
    # Some containers switch the bytecode off: every process would compile all of this project anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PATH"] = f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    RESULTS.mkdir(parents=True, exist_ok=True)
    for old in RESULTS.glob("*.xml"):
        old.unlink()
    started = time.monotonic()
    budget = None if chosen else "full" if full else "warm" if BUILT.exists() else "cold"
    outcomes = run_chosen(chosen or [name for name in known if full or name != "cuda"], full)
    return 1 if print_summary(outcomes, time.monotonic() - started, budget) else 0


if __name__ == "__main__":
    sys.exit(main())
