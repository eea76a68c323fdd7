"""Every expression of every dashboard and rule, evaluated by the Prometheus that watches the real
servers at work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest
import testinfra
from modelyard_prometheus import evaluate
from modelyard_traffic import chat
from test_engines import LOCAL

from modelyard.names import pool_name

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests/monitoring"))
from promql import EXCUSED, excuse, panels, parts, rules

FIRST, SECOND, LAST = "llama3.1:latest", "llama-cpp-default", "llama-cpp-native"
"""Each steps in for the one before it."""
UNITS = {
    FIRST: "modelyard-ollama@ollama",
    SECOND: f"modelyard-llama-cpp-python@{SECOND}",
    LAST: f"modelyard-llama-cpp@{LAST}",
}


@pytest.fixture
def failures(door: str, key: str) -> None:
    """A fallback that answers, a cool-down, a fallback that fails, a request that nobody
    answers."""
    engines, gateway = (testinfra.get_host(f"ansible://{name}") for name in ("lab1", "lab3"))
    try:
        # An engine that is away cools nothing down. This one breaks off what it was asked while its
        # pool is down: of two workers one has two of the three.
        engines.check_output(f"systemctl kill --kill-whom=all --signal=STOP {UNITS[FIRST]}")
        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(chat, door, key, FIRST) for _ in range(3)]
            # HAProxy's checks give it ten seconds.
            url, began = f"http://127.0.0.1:4003/{pool_name('ollama', None)}", time.monotonic()
            while gateway.run(f"curl --fail --silent {url}").succeeded:
                assert time.monotonic() - began < 60, "the pool did not notice"
                time.sleep(0.5)
            engines.check_output(f"systemctl kill --kill-whom=all --signal=KILL {UNITS[FIRST]}")
            for one in asked:
                one.result()
        engines.check_output(f"systemctl stop {' '.join(UNITS.values())}")
        with pytest.raises(HTTPError):
            chat(door, key, SECOND)
    finally:
        engines.check_output(f"systemctl start {' '.join(UNITS.values())}")


@pytest.mark.usefixtures("failures")
def test_every_expression_has_a_value(door: str, key: str, measured: Callable[[str], None]) -> None:
    """NaN is none. That alerts fire is made true, and what asks for it is evaluated, in
    molecule/monitoring."""
    prometheus = testinfra.get_host("ansible://lab3")
    wanted = [part for part in parts() if "ALERTS" not in part and not excuse(part)]
    missing, began = sorted(wanted), time.monotonic()
    while missing:
        # A rate wants to see answers between two rounds of Prometheus, which are 15 s apart.
        for model in LOCAL:
            for stream in (False, True):
                with suppress(OSError):
                    chat(door, key, model, stream=stream)
        found = evaluate(prometheus, missing)
        missing = [
            part for part in missing if all(series["value"][1] == "NaN" for series in found[part])
        ]
        assert not missing or time.monotonic() - began < 300, "\n".join(["no value for", *missing])
        time.sleep(5)
    took = time.monotonic() - began
    begins = {f'{{__name__=~"{begin}.*"}}': begin for begin in EXCUSED}
    there = [begins[choice] for choice, series in evaluate(prometheus, begins).items() if series]
    assert there == [], "is there: it needs no excuse (tests/monitoring/promql.py)"
    asked = panels() | rules()
    excused = sum(excuse(expression) is not None for expression in asked)
    firing = sum("ALERTS" in expression for expression in asked)
    measured(
        f"{len(asked)} expressions of panels and rules: {excused} are excused, {firing} wait for an"
        f" alert, all {len(wanted)} parts of the others had values {took:.0f} s after engines were"
        " stopped"
    )
