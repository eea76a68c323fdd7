"""Rollouts: which hosts change together, and what is said of how far one got."""

from __future__ import annotations

from typing import Any

import pytest
from catalogues import CATALOGUE, change, compiled
from hypothesis import given
from hypothesis import strategies as st

from modelyard.catalogue.rollout import Rollout
from modelyard.operations.rollouts import progress
from modelyard.output.render import render_plan
from modelyard.plan.waves import Together, build_waves

NOTHING = Together([], [], frozenset())


def hosts(count: int) -> list[str]:
    return [f"gpu{number}" for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("count", "batch", "sizes"),
    [
        (0, 1, []),
        (1, 1, [1]),
        (3, 1, [1, 1, 1]),
        (6, 2, [1, 2, 2, 1]),
        (50, "20%", [1, 10, 10, 10, 10, 9]),
        (4, "20%", [1, 1, 1, 1]),
        (3, "100%", [1, 2]),
    ],
)
def test_a_first_host_alone_then_batches(count: int, batch: int | str, sizes: list[int]) -> None:
    waves = build_waves(hosts(count), None, Rollout(batch=batch).size(count), NOTHING)
    assert [len(wave) for wave in waves] == sizes
    assert [host for wave in waves for host in wave] == hosts(count)


def test_the_first_host_can_be_chosen() -> None:
    assert build_waves(hosts(4), "gpu3", 2, NOTHING) == [["gpu3"], ["gpu1", "gpu2"], ["gpu4"]]


def test_a_pool_never_loses_all_hosts() -> None:
    pools = Together([frozenset({"gpu2", "gpu3"})], [], frozenset())
    assert build_waves(hosts(4), None, 3, pools) == [["gpu1"], ["gpu2", "gpu4"], ["gpu3"]]


def test_what_stands_in_for_each_other_and_gateways_change_apart() -> None:
    chain = Together([], [frozenset({"gpu2", "gpu3"})], frozenset())
    assert build_waves(hosts(3), None, 3, chain) == [["gpu1"], ["gpu2"], ["gpu3"]]
    gateways = Together([], [], frozenset({"gpu2", "gpu4"}))
    assert build_waves(hosts(4), None, 3, gateways) == [["gpu1"], ["gpu2", "gpu3"], ["gpu4"]]


@given(
    st.integers(1, 12),
    st.integers(1, 6),
    st.lists(st.frozensets(st.sampled_from(hosts(12)), min_size=2), max_size=6),
    st.lists(st.frozensets(st.sampled_from(hosts(12)), min_size=2), max_size=6),
)
def test_waves_have_every_host_once_and_keep_the_rules(
    count: int, size: int, pools: list[Any], alternatives: list[Any]
) -> None:
    apart = Together(pools, alternatives, frozenset({"gpu1", "gpu2"}))
    waves = build_waves(hosts(count), None, size, apart)
    assert sorted(host for wave in waves for host in wave) == sorted(hosts(count))
    assert len(waves[0]) == 1
    for wave in waves:
        assert 0 < len(wave) <= size
        if len(wave) > 1:
            assert len({"gpu1", "gpu2"} & {*wave}) < 2
            assert not any(pool <= {*wave} for pool in pools)
            assert all(len(only & {*wave}) < 2 for only in alternatives)


GROUPS = {
    "llm_stack": ["gw", "a", "b", "c"],
    "llm_gateway": ["gw"],
    "llm_redis": ["gw"],
    "llm_local": ["a", "b"],
    "llm_more": ["c"],
}
ADDRESSES = {"gw": "192.0.2.1", "a": "192.0.2.2", "b": "192.0.2.3", "c": "192.0.2.4"}
MORE = "  more: {type: llama_cpp, group: llm_more, port: 9000, models: [{name: m, source: {path: /m}}]}\n"


def rollout(text: str = CATALOGUE, settings: str = "{batch: 3}") -> dict[str, Any]:
    text = text.replace("  cloud:\n", f"{MORE}  cloud:\n") + f"llm_rollout: {settings}\n"
    result = compiled(text, groups=GROUPS, addresses=ADDRESSES)
    assert result.errors == [], [error.render() for error in result.errors]
    found: dict[str, Any] = result.as_dict()["rollout"]
    return found


def test_waves_follow_from_the_catalogue() -> None:
    found = rollout()
    assert found["waves"] == [["gw"], ["a", "c"], ["b"]], "a and b share a model"
    assert found["silent"] == {"c": ["m"]}
    assert (found["drain_s"], found["max_failures"], found["on_unreachable"]) == (120, 0, "stop")
    behind = change("    small: {", "    m: {chain: [small]}\n    small: {")
    assert rollout(behind)["silent"] == {}, "another answers for it"


def test_the_plan_shows_waves_and_what_nothing_answers() -> None:
    text = CATALOGUE.replace("  cloud:\n", f"{MORE}  cloud:\n")
    shown = render_plan(compiled(text, groups=GROUPS, addresses=ADDRESSES))
    block = next(one for one in shown.split("\n\n") if one.startswith("Rollout\n"))
    assert block.splitlines()[1:] == [
        "  wave 1  a  llama-cpp@small, llama-cpp@large-7b",
        "  wave 2  b  llama-cpp@small, llama-cpp@large-7b",
        "  wave 3  c  llama-cpp@m",
        "  while its engine on c restarts, nothing else answers m",
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{first: aa}", 'rollouts begin with "aa", which is not in llm_stack'),
        ("{batch: '20'}", "write 20 without quotes"),
        ("{batch: 0}", "a batch is a number of hosts, or a share"),
        ("{batch: 0%}", "a batch is a number of hosts, or a share"),
        ("{batch: 1.5}", "batch"),
        ("{on_unreachable: ignore}", "one of stop, skip"),
    ],
)
def test_what_is_wrong_with_a_rollout_is_told(settings: str, told: str) -> None:
    result = compiled(f"{CATALOGUE}llm_rollout: {settings}\n", groups=GROUPS, addresses=ADDRESSES)
    (error,) = result.errors
    assert told in error.render()
    assert error.path[0] == "llm_rollout"


def test_progress_names_every_host_and_why_it_failed() -> None:
    text = progress([["gpu1"], ["gpu2", "gpu3"], ["gpu4"]], ["gpu1", "gpu3"], {"gpu2": "bad model"})
    assert text.splitlines() == [
        "  wave 1  gpu1  done",
        "  wave 2  gpu2  failed",
        "  wave 2  gpu3  done",
        "  wave 3  gpu4  not begun",
        "gpu2 runs what it ran before, as far as that was possible:",
        "bad model",
    ]
