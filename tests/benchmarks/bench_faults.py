"""What a chain does while its first two models fail, beside the same chain on stock settings. Run
by `make bench`.

Both gateways run at the same time and are asked in turns, fault by fault. Times are compared and
printed, and fail for nobody. Who is called and what the client sees is what docs/gateway.md says,
or the exit status is 1: with the faults, the stubs and the chains of tests/gateway.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from bench_gateway import Variant

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "gateway")
)  # so the imports below cannot stand at the top

import harness
import routes
import trouble
from faults import FAULTS, Fault
from routes import Seen
from stubs import OK, Knocks, Stubs
from tables import kept

from modelyard.names import MASTER_KEY

ORDER = {"a": "bc", "b": "c", "c": ""}
"""a falls back to [b, c]. a and b fail in the same way, so that it is seen how often each of two
steps is asked, and whether a second failure is passed over as the first one is; c answers."""

LETTERS = "".join(ORDER)

HEALTHY = Fault("healthy", "nothing fails", OK)
ROWS = (
    ("refused", False),
    ("500", False),
    ("429", False),
    ("silent", False),
    ("silent-token", True),
    ("html", False),
    ("html", True),
    ("401", False),
    ("400", False),
)
"""What fails, and whether a stream is asked for: where it makes a difference."""

FOLLOWING = 10
"""Requests after the first one."""
PATIENCE_S = 30
"""A client gives up when nothing comes for so long."""
LEAST = 2
AT_MOST_S = 12
"""No more following requests after so many seconds, if there were `LEAST`."""
TIMEOUT_S = 3

FIRST_BUDGET_S = 0.5
OVERHEAD_BUDGET_MS = 50
"""For a refused backend: the first request, and how much longer the following ones take than with a
healthy one."""

OURS, STOCK = "ours", "stock"
LEGEND = {
    OURS: (
        "the unit's command and variables and the document that the compiler emits, one worker;"
        f" llm_gateway.timeouts of {TIMEOUT_S} s (the defaults, 600 s and for streams 120 s, would"
        " be waited for here)"
    ),
    STOCK: (
        "the same environment; LiteLLM's own command line; a config as its documentation shows one:"
        " model_list with model, api_base and api_key, litellm_settings.fallbacks with the same"
        " chain, a master key, and nothing else: no time-outs (its default is 6000 s), retries,"
        " cool-downs or callbacks of ours"
    ),
}


@dataclass(frozen=True, slots=True)
class Result:
    """What one gateway did with the requests to one chain."""

    first: Seen
    following: Sequence[Seen]

    @property
    def median_s(self) -> float:
        """Of the following requests."""
        return float(statistics.median(seen.answer.seconds for seen in self.following))


def by_hand(document: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the same models and chains as one writes it who reads LiteLLM's
    documentation."""
    models = [
        {
            "model_name": entry["model_name"],
            "litellm_params": {
                key: entry["litellm_params"][key] for key in ("model", "api_base", "api_key")
            },
        }
        for entry in document["model_list"]
    ]
    chains = document["router_settings"]["fallbacks"]
    return {
        "model_list": models,
        "litellm_settings": {"fallbacks": chains},
        "general_settings": {"master_key": f"os.environ/{MASTER_KEY}"},
    }


def pairs() -> list[tuple[Fault, bool]]:
    """The rows, with the chains in which nothing fails."""
    by_slug = {fault.slug: fault for fault in FAULTS}
    return [(HEALTHY, False), (HEALTHY, True), *((by_slug[slug], stream) for slug, stream in ROWS)]


def ask(gateway: Variant, stubs: Stubs, knocks: Knocks, fault: Fault, stream: bool) -> Result:
    """The first request and those that follow; fewer, if they take long."""
    for letter in "ab":
        stubs.behaviours[routes.name(fault, stream, letter)] = fault.behaviour or OK

    def once() -> Seen:
        return routes.ask(gateway, stubs, knocks, fault, stream, LETTERS, timeout_s=PATIENCE_S)

    first = once()
    following: list[Seen] = []
    started = time.monotonic()
    while len(following) < FOLLOWING and (
        len(following) < LEAST or time.monotonic() - started < AT_MOST_S
    ):
        following.append(once())
        if following[-1].answer.seconds >= PATIENCE_S:
            break
    return Result(first, following)


def measure(
    gateways: Mapping[str, Variant], stubs: Stubs, knocks: Knocks
) -> dict[tuple[str, bool, str], Result]:
    """All rows, fault by fault ours and then the stock one. What waits for a time-out waits
    together."""
    for gateway in gateways.values():  # the first request of all takes half a second more
        for stream in (False, True):
            for _ in range(3):
                gateway.chat(routes.name(HEALTHY, stream, "a"), stream=stream)
    results: dict[tuple[str, bool, str], Result] = {}
    waiting = [pair for pair in pairs() if routes.is_silent(pair[0])]
    for fault, stream in (pair for pair in pairs() if pair not in waiting):
        for kind, gateway in gateways.items():
            results[fault.slug, stream, kind] = ask(gateway, stubs, knocks, fault, stream)
    for kind, gateway in gateways.items():
        with ThreadPoolExecutor(len(waiting)) as pool:
            found = pool.map(lambda pair, asked=gateway: ask(asked, stubs, knocks, *pair), waiting)
            results |= {
                (fault.slug, stream, kind): one
                for (fault, stream), one in zip(waiting, found, strict=True)
            }
    return results


def counted(calls: str) -> str:
    """`a a a b c` as `3a b c`."""
    runs = [(letter, len(list(run))) for letter, run in groupby(calls.split())]
    return " ".join(f"{count if count > 1 else ''}{letter}" for letter, count in runs)


def seconds(value: float) -> str:
    """A time with as many digits as mean something."""
    return f"> {PATIENCE_S}" if value >= PATIENCE_S else f"{value:.2f}"


def print_table(results: Mapping[tuple[str, bool, str], Result]) -> None:
    """Print a line per fault and gateway, and how many times as long the stock one took."""
    print(f"{'':42} {'first request':>14} {'following requests':>29} {'stock : ours':>16}")
    print(
        f"{'a and b fail: how':35} {'':6} {'calls':>7} {'s':>6} "
        f"{'n':>4} {'a':>4} {'b':>3} {'c':>3} {'median ms':>11} {'first':>8} {'next':>7}  client"
    )
    for fault, stream in pairs():
        ours, stock = (results[fault.slug, stream, kind] for kind in (OURS, STOCK))
        for kind, one in ((OURS, ours), (STOCK, stock)):
            words = f"{fault.words}{', stream' if stream else ''}" if kind == OURS else ""
            calls = [letter for seen in one.following for letter in seen.calls.split()]
            totals = " ".join(f"{calls.count(letter):3}" for letter in LETTERS)
            clients = list(dict.fromkeys(seen.client for seen in (one.first, *one.following)))
            took = one.first.answer.seconds
            median = (
                f"> {PATIENCE_S * 1000}"
                if one.median_s >= PATIENCE_S
                else f"{one.median_s * 1000:.0f}"
            )
            ratios = ["", ""]
            if kind == STOCK:
                ratios = [
                    f"{'> ' if theirs >= PATIENCE_S else ''}{theirs / mine:.{0 if theirs > 10 * mine else 1}f}"
                    for theirs, mine in (
                        (took, ours.first.answer.seconds),
                        (one.median_s, ours.median_s),
                    )
                ]
            print(
                f"{words:35} {kind:6} {counted(one.first.calls):>7} {seconds(took):>6}"
                f" {len(one.following):4} ",
                f"{totals} {median:>11} {ratios[0]:>8} {ratios[1]:>7}  {', then '.join(clients)}",
            )


def broken_promises(results: Mapping[tuple[str, bool, str], Result]) -> list[str]:
    """Where ours did not do what docs/gateway.md says. Its chain is a b d c, this one is without
    d."""
    rows = {(row["how a, b and d fail"], row["request"]): row for row in kept("order of attempts")}
    problems = []
    for fault, stream in pairs():
        if fault is HEALTHY:
            calls, third, client = "a", "a", "200 from a"
        else:
            row = (
                rows.get((fault.words, "stream" if stream else "whole")) or rows[fault.words, "any"]
            )
            calls, third = (row[column].replace("d ", "") for column in ("calls", "third time"))
            client = row["client saw"]
        found = results[fault.slug, stream, OURS]
        for number, seen in enumerate((found.first, *found.following), start=1):
            promised = (calls if number <= 2 else third, client)
            if (seen.calls, seen.client) != promised:
                problems.append(
                    f"{fault.words}{', stream' if stream else ''}, request {number}: called"
                    f" {seen.calls}, client saw {seen.client}; docs/gateway.md promises"
                    f" {promised[0]} and {promised[1]}"
                )
    return problems


def print_budgets(results: Mapping[tuple[str, bool, str], Result]) -> None:
    """Print whether a refused backend costs no more than it may."""
    refused, healthy = (results[slug, False, OURS] for slug in ("refused", "healthy"))
    first, more = refused.first.answer.seconds, (refused.median_s - healthy.median_s) * 1000
    for what, value, budget, unit in (
        ("first request", first, FIRST_BUDGET_S, "s"),
        ("following requests, more than healthy", more, OVERHEAD_BUDGET_MS, "ms"),
    ):
        met = "met" if value <= budget else "MISSED"
        print(
            f"refused backend, {what}: {value:.{2 if unit == 's' else 0}f} {unit}; budget {budget}"
            f" {unit}: {met}"
        )


AT_ONCE = 20


def print_redis(environment: Path, stubs: Stubs, directory: Path) -> list[str]:
    """Print a row per kind of trouble with Redis while an engine fails; return where somebody
    waited or was refused."""
    problems = []
    with trouble.running(environment, stubs, directory) as lab:
        for kind in trouble.TROUBLES:
            answers, others = trouble.measure(lab, kind, AT_ONCE)
            longest, waited = (max(one.seconds for one in found) for found in (answers, others))
            words = f"Redis {'down' if kind == 'stopped' else kind} and an engine failing"
            what = (
                f"{AT_ONCE} at once: the next step after {longest:.1f} s; another model's clients:"
                f" {waited:.1f} s"
            )
            print(f"{words:42} {what} at most")
            if max(longest, waited) > trouble.BOUND_S or any(
                one.status != 200 for one in (*answers, *others)
            ):
                problems.append(f"{words}: {what}, or an error")
    return problems


def main() -> None:
    """Print the tables. Exits with 1 if ours did not do what is promised."""
    environment = harness.environment()  # to build it takes the world outside
    harness.isolate()
    gateway = {"timeouts": {"request_s": TIMEOUT_S, "stream_s": TIMEOUT_S}}
    catalogue = yaml.safe_dump(routes.catalogue(pairs(), ORDER, gateway), sort_keys=False)
    plan = harness.plan(harness.compiled(catalogue))
    started = time.monotonic()
    print(
        f"A chain of three models, a b c: a and b fail, c answers. A first request and {FOLLOWING}"
        " that follow, one at a time;\nfewer where they take long. A client gives up after"
        f" {PATIENCE_S} s of silence. Calls: what the stubs saw of the first\nrequest, in order. a,"
        " b, c: how often each was called by all the following ones.\n",
        flush=True,
    )
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-"))
        )
        stubs = stack.enter_context(Stubs())
        routes.listen(stubs, ORDER)
        for kind in (OURS, STOCK):
            (directory / kind).mkdir()
        gateways = {
            OURS: Variant(environment, plan, directory / OURS),
            STOCK: Variant(
                environment,
                {**plan, "document": by_hand(plan["document"])},
                directory / STOCK,
                stock=True,
            ),
        }
        for one in gateways.values():
            stack.enter_context(one)
        results = measure(gateways, stubs, stack.enter_context(Knocks(routes.KNOCKS)))
        (directory / "redis").mkdir()
        problems = print_redis(environment, stubs, directory / "redis")
    print()
    print_table(results)
    print()
    print_budgets(results)
    print()
    for kind, what in LEGEND.items():
        print(f"{kind}: {what}.")
    print(f"({time.monotonic() - started:.0f} s; load average at the end {os.getloadavg()[0]:.1f})")
    if problems := [*problems, *broken_promises(results)]:
        raise SystemExit("\n".join(["", *problems]))


if __name__ == "__main__":
    main()
