"""The part of the report between the gateway and its engines: which hosts share the requests of a
process, how many each answered, and what waited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from modelyard.report.figures import NONE, count, duration, share
from modelyard.report.parts import Pool, Section, Trace
from modelyard.report.told import Told, total

PREFIX = "pool."
"""What names of pools begin with; as a column of their own they need not say so."""


def pools_section(told: Told, pools: Mapping[str, Pool], most_drawn: int) -> Section:
    """Return the section: those of the plan first, then what was one in the period and is no
    longer.
    """
    answers = told.by("pooled", "proxy", "server")
    drawn = sorted(key for key in answers if round(total(answers[key])))
    return Section(
        "pools",
        "Hosts of engines",
        "Requests that HAProxy sent to the hosts which share an engine's process. What is over the"
        " number that a host gets at once, from each gateway, waits. Down: no gateway could use it,"
        " or one of them.",
        (
            "Pool",
            "Host",
            "At once",
            "Waits at most",
            "Requests",
            "Share",
            "Down",
            "Longest queue",
        ),
        2,
        list(_rows(told, pools)),
        "No pool of engines in this inventory.",
        [
            Trace(" ".join((key[0].removeprefix(PREFIX), key[1])), answers[key], "bar", place)
            for place, key in enumerate(drawn[:most_drawn])
        ],
        "requests",
    )


def _rows(told: Told, pools: Mapping[str, Pool]) -> Iterator[Sequence[str]]:
    answers = told.by("pooled", "proxy", "server")
    down = told.by("pool_down", "proxy", "server")
    queued = told.by("queued", "proxy")
    former = sorted(key for key in answers if round(total(answers[key])))
    planned = [(pool, host) for pool, one in pools.items() for host in one.hosts]
    for pool, host in dict.fromkeys([*planned, *former]):
        whole = sum(total(values) for key, values in answers.items() if key[0] == pool)
        here = total(answers.get((pool, host), ()))
        away = sum(one.seconds for one in told.episodes(down.get((pool, host), ())))
        one = pools.get(pool) if (pool, host) in planned else None
        queue = max((value for value in queued.get((pool,), ()) if value is not None), default=0)
        yield (
            pool.removeprefix(PREFIX),
            host,
            NONE if one is None else str(one.max_parallel or "any"),
            NONE if one is None else f"{one.queue_s} s",
            count(here),
            share(here, whole),
            duration(away) if away else NONE,
            count(queue),
        )
