#!/usr/bin/env python3
"""Load the lab's gateway with Locust for a while, print what it did, and judge it by the thresholds
in judge.py.

Run by `make loadtest`. A load is sent to the lab's hosts and to loopback, and nowhere else. The
exit status is 1 if a threshold was missed, 2 if nothing was sent.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

CLONE = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CLONE))  # where lab is; so the imports below cannot stand at the top

from judge import UNTIMED, Limits, Run, judge, tables  # noqa: E402

from lab.state import Lab  # noqa: E402
from modelyard.controller import secrets  # noqa: E402
from modelyard.names import MASTER_KEY, url_host  # noqa: E402

LOAD = Path(__file__).parent
RESULTS = CLONE / ".cache/loadtest"
INVENTORIES = [CLONE / "inventories" / name for name in ("lab", "lab-engines")]
USERS = range(1, 65)
SECONDS = range(5, 601)
REQUESTS = 20_000
"""No run sends more, however fast the gateway is."""
PATIENCE_S = 60
"""How long requests that were sent in time may take to end; longer than a client waits for a word
(locustfile.py)."""


class LoadError(Exception):
    """Why nothing was sent."""


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked."""

    url: str
    models: Sequence[str]

    @classmethod
    def read(cls, path: Path, lab: Collection[str]) -> Target:
        """Read what target.yml wrote. `lab`: the addresses of the lab's hosts.

        Raises LoadError.
        """
        found = json.loads(path.read_text(encoding="utf-8"))
        refuse_foreign(found["address"], lab)
        if not found["models"]:
            raise LoadError("no engine of the inventory answers for any name")
        return cls(f"http://{url_host(found['address'])}:{found['port']}", found["models"])


def refuse_inventory(path: Path) -> None:
    """Raise LoadError for an inventory that is none of the lab's."""
    if path.resolve() not in INVENTORIES:
        names = " or ".join(str(one.relative_to(CLONE)) for one in INVENTORIES)
        raise LoadError(f"INVENTORY={path}: a load is sent to the lab only: {names}")


def refuse_foreign(address: str, lab: Collection[str]) -> None:
    """Raise LoadError for an address that is neither loopback nor a host of the lab."""
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback and address not in lab:
        there = ", ".join(lab) or "none that is up"
        raise LoadError(
            f"the gateway's address {address} is no host of the lab ({there}): no load is sent"
            " there"
        )


def locust(
    target: Target, key: str, users: int, seconds: int, results: Path, requests: int = REQUESTS
) -> Run:
    """Run Locust in a process of its own, for it patches the whole of Python's I/O; return what it
    saw.

    Raises LoadError if it sent nothing, or came to no good end.
    """
    command = [
        sys.executable,
        "-m",
        "locust",
        "--locustfile",
        str(LOAD / "locustfile.py"),
        "--headless",
    ]
    command += [
        "--loglevel",
        "WARNING",
        "--only-summary",
        "--json-file",
        "stats",
        "--html",
        "report.html",
    ]
    command += [
        "--host",
        target.url,
        "--users",
        str(users),
        "--spawn-rate",
        str(users),
        "--run-time",
        f"{seconds}s",
    ]
    command += [
        "--stop-timeout",
        str(PATIENCE_S),
        "--requests",
        str(requests),
        "--exit-code-on-error",
        "0",
    ]
    for model in target.models:
        command += ["--model", model]
    results.mkdir(parents=True)
    try:
        done = subprocess.run(
            command,
            cwd=results,
            env={**os.environ, MASTER_KEY: key},
            stdin=subprocess.DEVNULL,
            timeout=seconds + 2 * PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"Locust did not end {2 * PATIENCE_S} s after its time") from error
    if done.returncode:
        raise LoadError(f"Locust ended with status {done.returncode}")
    run = Run.read(results / "stats.json", results / "failures.json")
    if not run.answers:
        raise LoadError("Locust sent no request")
    return run


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description="Load the lab's gateway. `make loadtest` starts everything it needs."
    )
    made.add_argument("--inventory", type=Path, default=INVENTORIES[0])
    made.add_argument("--users", default="4")
    made.add_argument("--seconds", default="60")
    made.add_argument(
        "--results", type=Path, help="a new directory (default: below .cache/loadtest)"
    )
    made.add_argument(
        "--check", action="store_true", help="refuse what would be refused, and send nothing"
    )
    made.add_argument(
        "--target", type=Path, help="what tests/load/target.yml wrote, for a scenario's hosts"
    )
    made.add_argument("--untimed", action="store_true", help="judge failures, not how fast it was")
    return made


def number(name: str, text: str, allowed: range) -> int:
    """Read a number. Raises LoadError."""
    if not (text.isascii() and text.isdigit() and int(text) in allowed):
        raise LoadError(f"{name}={text}: a whole number from {allowed.start} to {allowed.stop - 1}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; return the exit status."""
    options = parser().parse_args(arguments)
    try:
        users, seconds = (
            number("USERS", options.users, USERS),
            number("SECONDS", options.seconds, SECONDS),
        )
        if options.target is None:
            refuse_inventory(options.inventory)
        if options.check:
            return 0
        lab = [host.address for host in Lab.of(os.environ.get("MODELYARD_LAB", "default")).hosts()]
        target = (
            Target.read(options.target, lab)
            if options.target
            else target_of(options.inventory, lab)
        )
        key = secrets.find(MASTER_KEY, {}, options.inventory / ".credentials")
        if not key:
            raise LoadError(
                f"{MASTER_KEY} is neither in the environment nor in"
                f" {options.inventory}/.credentials"
            )
        results = options.results or RESULTS / time.strftime("%Y%m%d-%H%M%S")
        print(f"{users} users at once for {seconds} s at {target.url}", flush=True)
        run = locust(target, key, users, seconds, results)
    except LoadError as why:
        print(f"loadtest: {why}", file=sys.stderr)
        return 2
    return report(run, UNTIMED if options.untimed else Limits(), results)


def report(run: Run, limits: Limits, results: Path) -> int:
    """Print a run and what is to be said of it; return the exit status."""
    verdicts = judge(run, limits)
    print(f"\n{tables(run, verdicts)}\n")
    print(
        f"machine  {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}, the load itself"
        " included"
    )
    print(f"plots    {results}/report.html\nfigures  {results}/stats.json", flush=True)
    missed = [one for one in verdicts if not one.met]
    for one in missed:
        print(f"loadtest: missed: {one.what}: {one.value}, limit: {one.limit}", file=sys.stderr)
    return 1 if missed else 0


def target_of(inventory: Path, lab: Collection[str]) -> Target:
    """Ask the catalogue of an inventory where its gateway is. Raises LoadError."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "target.json")
        command = [
            "ansible-playbook",
            str(LOAD / "target.yml"),
            "-i",
            str(inventory),
            "-e",
            f"target={path}",
        ]
        done = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
        if done.returncode:
            raise LoadError(
                f"{done.stdout}{done.stderr}\nthe inventory does not say where its gateway is"
            )
        return Target.read(path, lab)


if __name__ == "__main__":
    sys.exit(main())
