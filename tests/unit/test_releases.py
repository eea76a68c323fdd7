"""The way back: what a rollback does, by what the hosts remember."""

from __future__ import annotations

from typing import Any

import pytest

from modelyard.operations.releases import RollbackError, render, way_back

NOW = 1_800_000_000


def entry(run: str, at: int, release: str, outcome: str = "live", **more: Any) -> dict[str, Any]:
    return {
        "at": NOW - 1000 + at,
        "outcome": outcome,
        "release": release,
        "run": run,
        "who": "me@ws",
        **more,
    }


def service(
    *entries: dict[str, Any], live: str | None = "", gone: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A service as a host tells of it; what went live is there but for `gone`."""
    good = [one["release"] for one in entries if one["outcome"] == "live"]
    there = [one for one in dict.fromkeys(reversed(good)) if one not in gone]
    current = (good or [None])[-1] if live == "" else live
    previous = next((one for one in reversed(good) if one != current), None)
    return {"live": current, "previous": previous, "there": there, "entries": list(entries)}


HISTORIES = {
    "gpu1": {
        "exporter@node": service(entry("one", 1, "eeee1")),
        "llama-cpp@new": service(entry("two", 10, "aaaa2")),
        "llama-cpp@old": service(
            entry("one", 2, "aaaa1"), entry("two", 11, "aaaa1", "retired"), live=None
        ),
        "redis": service(
            entry("one", 3, "cccc1"), entry("two", 9, "cccc2"), entry("two", 12, "cccc3")
        ),
    },
    "gpu2": {
        "litellm": service(
            entry("one", 4, "dddd1"),
            entry("two", 20, "dddd2"),
            entry("three", 30, "dddd9", "failed", why="no"),
        ),
    },
}


def told(*arguments: str, **more: Any) -> list[str]:
    return [
        f"{step.host} {step.service} {step.release}"
        for step in way_back(more.get("of", HISTORIES), *arguments)
    ]


def test_the_latest_run_is_undone_as_a_whole() -> None:
    """Changed twice, replaced, new: all as before, and what goes comes last. A run that only failed
    changed nothing."""
    assert told() == [
        "gpu1 redis cccc1",
        "gpu1 llama-cpp@old aaaa1",
        "gpu1 llama-cpp@new None",
        "gpu2 litellm dddd1",
    ]


def test_undone_twice_is_where_it_began() -> None:
    undone = {
        "gpu2": {
            "litellm": service(*HISTORIES["gpu2"]["litellm"]["entries"], entry("four", 40, "dddd1"))
        }
    }
    assert told(of=undone) == ["gpu2 litellm dddd2"]


def test_a_clock_that_was_ahead_does_not_hide_later_runs() -> None:
    jumped = {
        "gpu1": {
            "redis": service(
                entry("one", 1, "cccc1"), entry("ahead", 10**8, "cccc2"), entry("now", 9, "cccc3")
            ),
            "haproxy": service(entry("one", 1, "bbbb1"), entry("ahead", 10**8, "bbbb2")),
        }
    }
    assert told(of=jumped) == ["gpu1 redis cccc2"]


def test_engines_go_back_in_the_order_in_which_they_were_changed() -> None:
    """Whoever ends a chain goes first, as in the run that is undone: somebody answers all the
    while."""
    engines = {
        "gpu1": {
            "llama-cpp@head": service(entry("one", 1, "aaaa1"), entry("two", 12, "aaaa2")),
            "llama-cpp@last": service(entry("one", 1, "bbbb1"), entry("two", 10, "bbbb2")),
        }
    }
    assert told(of=engines) == ["gpu1 llama-cpp@last bbbb1", "gpu1 llama-cpp@head aaaa1"]


def test_one_service() -> None:
    assert told("redis") == ["gpu1 redis cccc2"]
    assert told("redis", "cccc1") == ["gpu1 redis cccc1"]
    assert told("litellm", "dddd1") == ["gpu2 litellm dddd1"]
    assert told("llama-cpp@old") == ["gpu1 llama-cpp@old aaaa1"], "what was retired comes back"
    assert told("redis", "cccc3") == [], "it is live"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "cccc1"), "add -e service=NAME"),
        (("rediss",), 'did you mean "redis"?'),
        (("redis", "ffff"), 'has no release "ffff" of redis. Available: gpu1: cccc2, cccc1'),
        (("redis", "cccc"), 'several releases begin with "cccc": cccc3, cccc2, cccc1'),
        (
            ("exporter@node",),
            "has a release of exporter@node before this one. Available: gpu1: none",
        ),
    ],
)
def test_what_cannot_be_gone_back_to_is_said(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(RollbackError, match=message.replace("?", "[?]")):
        way_back(HISTORIES, *arguments)


def test_half_a_way_back_is_none() -> None:
    pruned = {
        "gpu1": {
            "redis": service(entry("one", 1, "cccc1"), entry("two", 2, "cccc2"), gone=("cccc1",))
        }
    }
    with pytest.raises(RollbackError, match="gpu1: release cccc1 of redis no longer exists"):
        way_back(pruned)
    with pytest.raises(RollbackError, match="no host has a record"):
        way_back({"gpu1": {}})


def test_table() -> None:
    shown = render(
        {**HISTORIES, "gpu3": "not reachable: No route to host", "gpu4": {}}, NOW
    ).splitlines()
    assert "  redis  cccc3  live since 2027-01-15 07:43 UTC, 16 min ago by me@ws" in shown
    assert (
        "    back to cccc2  live since 2027-01-15 07:43 UTC, 16 min ago by me@ws, the one before"
        in "\n".join(shown)
    )
    assert "  llama-cpp@old  retired 2027-01-15 07:43 UTC by me@ws" in shown
    assert "      last change failed 2027-01-15 07:43 UTC by me@ws: dddd9, no" in shown
    assert shown[-4:] == [
        "Host gpu3",
        "  not reachable: No route to host",
        "Host gpu4",
        "  no services of Modelyard",
    ]
