"""The order of attempts: what the compiler says it is, and what the real gateway does, for every
class of error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from faults import FAULTS, Fault
from harness import Gateway, compiled, order, plan
from routes import KNOCKS, STOPPED_PORTS, Seen, ask, catalogue, is_silent, listen, name
from stubs import OK, Knocks, Stubs
from tables import SECONDS, Tables

from modelyard.compile import Compiled

T = TypeVar("T")

ORDER = {"a": "bc", "b": "d", "d": "c", "c": ""}
"""a falls back to [b, c], b to [d], d to [c]: compiled, a's order is a b d c. c is the last step
and never cooled."""

LETTERS = "".join(ORDER)

TIMEOUT_S = 1

COOLDOWN_S = 300
"""Longer than the gateway remembers anything else: of its 200 memories it drops those that end
first, so that with this many models the failures it has counted would be gone at once (see
test_cooldown.py)."""

GATEWAY = {"cooldown_s": COOLDOWN_S, "timeouts": {"request_s": TIMEOUT_S, "stream_s": TIMEOUT_S}}

BROKEN_STREAMS = {"silent-headers", "silent-role", "cut-headers", "cut-role", "garbled"}
"""Streams that break before there is any text: the first step is passed over, a second one that
does so is not."""

HALF_ANSWERS = {"silent-token", "cut-token"}
"""Streams that break when the client has read a part of the answer: nobody steps in."""

EMPTY_ANSWERS = {"html"}
"""Streams without an event: the gateway takes them for answers without text."""

NO_ERROR = {"filtered"}
"""No error where no chain for refused content exists."""

NEVER_COOLED = {"403", "404", "400", "a-400", "filtered"} | {
    fault.slug for fault in FAULTS if fault.slug.startswith(("long-", "a-long", "policy"))
}
"""What says something about the request, not about who got it."""

STEPS = ("ordinary", "context_window", "content_policy")
"""Who steps in, where each kind of error has a chain of its own."""

PAIRS = [(fault, stream) for fault in FAULTS for stream in (False, True)]
IDS = [f"{fault.slug}-{'stream' if stream else 'whole'}" for fault, stream in PAIRS]


def with_chains_of_each_kind() -> dict[str, Any]:
    """One model for every class of error; who steps in says which chain was used."""
    providers: dict[str, Any] = {
        "steps": {
            "type": "openai_compatible",
            "base_url": "http://192.0.2.4:8000/v1",
            "models": [{"name": step} for step in STEPS],
        }
    }
    chains: dict[str, dict[str, Any]] = {step: {} for step in STEPS}
    for fault, stream in PAIRS:
        head = name(fault, stream, "a")
        port = 9 if fault.behaviour is None else 8000
        provider = {"type": fault.provider, "base_url": f"http://192.0.2.1:{port}/v1", "models": []}
        if fault.provider == "anthropic":
            provider |= {"base_url": "http://192.0.2.1:8000", "api_key_env": "ANTHROPIC_API_KEY"}
        providers.setdefault(f"{fault.provider}-{port}", provider)["models"].append({"name": head})
        for step in STEPS:
            chains[step][head] = {"chain": [step]}
    return {
        "llm_providers": providers,
        "llm_routing": {
            "fallbacks": chains["ordinary"] | {step: {"terminal": True} for step in STEPS},
            "context_window_fallbacks": chains["context_window"],
            "content_policy_fallbacks": chains["content_policy"],
        },
        "llm_gateway": {"timeouts": {"request_s": TIMEOUT_S, "stream_s": TIMEOUT_S}},
    }


@dataclass(frozen=True, slots=True)
class Observed:
    """Three requests to one chain: all but the last step fail; all fail; again all but the last
    step fail."""

    first: Seen
    exhausted: Seen
    afterwards: Seen


def observe(gateway: Gateway, stubs: Stubs, knocks: Knocks, fault: Fault, stream: bool) -> Observed:
    a, b, d, c = (name(fault, stream, letter) for letter in LETTERS)

    def once() -> Seen:
        return ask(gateway, stubs, knocks, fault, stream, LETTERS)

    for model in (a, b, d):
        stubs.behaviours[model] = fault.behaviour or OK
    first = once()
    spare = stubs.listen("192.0.2.4", STOPPED_PORTS[stream])
    if fault.behaviour is None:
        spare.stop()
    stubs.behaviours[c] = fault.behaviour or OK
    exhausted = once()
    if fault.behaviour is None:
        spare.start()
    stubs.behaviours[c] = OK
    return Observed(first, exhausted, once())


def each(what: Callable[[Fault, bool], T]) -> dict[tuple[str, bool], T]:
    """Do something for every class of error, with and without a stream; those that wait for a
    time-out together."""
    waiting = [pair for pair in PAIRS if is_silent(pair[0])]
    others = [pair for pair in PAIRS if not is_silent(pair[0])]
    with ThreadPoolExecutor(len(waiting)) as pool:
        done = [*pool.map(lambda pair: what(*pair), waiting), *(what(*pair) for pair in others)]
    return {
        (fault.slug, stream): one
        for (fault, stream), one in zip([*waiting, *others], done, strict=True)
    }


@pytest.fixture(scope="module")
def start(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Compiled], Gateway]:
    listen(stubs, ORDER)
    return lambda result: Gateway(environment, plan(result), tmp_path_factory.mktemp("order"))


@pytest.fixture(scope="module")
def result() -> Compiled:
    return compiled(
        yaml.safe_dump(catalogue(PAIRS, ORDER, GATEWAY), sort_keys=False),
        secrets=["ANTHROPIC_API_KEY"],
    )


@pytest.fixture(scope="module")
def observed(
    start: Callable[[Compiled], Gateway], result: Compiled, stubs: Stubs
) -> dict[tuple[str, bool], Observed]:
    with start(result) as gateway, Knocks(KNOCKS) as knocks:
        for stream in (False, True):  # The first request of all takes half a second more.
            gateway.chat(name(FAULTS[0], stream, "c"), stream=stream)
        return each(lambda fault, stream: observe(gateway, stubs, knocks, fault, stream))


@pytest.fixture(scope="module")
def stepped_in(start: Callable[[Compiled], Gateway], stubs: Stubs) -> dict[tuple[str, bool], str]:
    """Who answered, where each kind of error has a chain of its own."""
    result = compiled(
        yaml.safe_dump(with_chains_of_each_kind(), sort_keys=False), secrets=["ANTHROPIC_API_KEY"]
    )
    with start(result) as gateway:

        def who(fault: Fault, stream: bool) -> str:
            head = name(fault, stream, "a")
            stubs.behaviours[head] = fault.behaviour or OK
            answer = gateway.chat(head, stream=stream)
            said = answer.text.removeprefix("I am ")
            return said if said in STEPS else "nobody"

        return each(who)


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_calls_are_the_compiled_order(
    observed: dict[tuple[str, bool], Observed], result: Compiled, fault: Fault, stream: bool
) -> None:
    one = observed[fault.slug, stream]
    planned = [model[-1] for model in order(result, name(fault, stream, "a"))]
    assert planned == ["a", "b", "d", "c"]
    no_error = fault.slug in NO_ERROR or (stream and fault.slug in EMPTY_ANSWERS)
    if no_error or (stream and fault.slug in HALF_ANSWERS):
        planned = planned[:1]
    elif stream and fault.slug in BROKEN_STREAMS:
        planned = planned[:2]
    assert one.first.calls.split() == planned
    assert (one.first.answer.error is None) == (planned[-1] == "c" or no_error)
    if planned[-1] == "c":
        c = name(fault, stream, "c")
        assert (one.first.answer.status, one.first.answer.model, one.first.answer.text) == (
            200,
            c,
            f"I am {c}",
        )
        assert one.first.answer.done


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_an_attempt_costs_its_timeout_and_no_more(
    observed: dict[tuple[str, bool], Observed], fault: Fault, stream: bool
) -> None:
    """A chain costs the sum of its attempts; nothing sleeps between them. The margin is for a busy
    machine."""
    one = observed[fault.slug, stream].first
    least = (
        TIMEOUT_S * sum(letter != "c" for letter in one.calls.split()) if is_silent(fault) else 0
    )
    assert least - 0.1 < one.answer.seconds < least + 5


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_what_failed_twice_is_left_alone(
    observed: dict[tuple[str, bool], Observed], fault: Fault, stream: bool
) -> None:
    one = observed[fault.slug, stream]
    broken = stream and fault.slug in BROKEN_STREAMS | HALF_ANSWERS | EMPTY_ANSWERS
    assert one.afterwards.calls == (
        one.first.calls if broken or fault.slug in NEVER_COOLED else "c"
    )


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_an_exhausted_chain_answers_with_the_first_error(
    observed: dict[tuple[str, bool], Observed], fault: Fault, stream: bool
) -> None:
    answer = observed[fault.slug, stream].exhausted.answer
    if fault.slug in NO_ERROR or (stream and fault.slug in EMPTY_ANSWERS):
        assert answer.status == 200
    else:
        assert answer.error is not None
        assert isinstance(answer.error.get("message"), str)
        assert answer.done == (answer.status != 200)


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_which_chain(stepped_in: dict[tuple[str, bool], str], fault: Fault, stream: bool) -> None:
    expected: str = "ordinary" if fault.kind == "any" else fault.kind
    if stream and fault.slug in HALF_ANSWERS | EMPTY_ANSWERS | {"filtered"}:
        expected = "nobody"
    assert stepped_in[fault.slug, stream] == expected


def test_table(
    observed: dict[tuple[str, bool], Observed],
    stepped_in: dict[tuple[str, bool], str],
    tables: Tables,
) -> None:
    columns = [
        "how a, b and d fail",
        "request",
        "calls",
        "client saw",
        SECONDS,
        "third time",
        "c fails too",
        "chain",
    ]
    rows: list[list[str]] = []
    for fault in FAULTS:
        cells: dict[bool, list[str]] = {}
        for stream in (False, True):
            one = observed[fault.slug, stream]
            seconds = f"{one.first.answer.seconds:.0f}"
            chain = stepped_in[fault.slug, stream].replace("_", " ")
            cells[stream] = [
                one.first.calls,
                one.first.client,
                seconds,
                one.afterwards.calls,
                one.exhausted.client,
                chain,
            ]
        if without(cells[False], 2) == without(cells[True], 2):
            rows.append([fault.words, "any", *cells[False]])
        else:
            rows += [
                [fault.words, "stream" if stream else "whole", *cells[stream]]
                for stream in (False, True)
            ]
    tables.check("order of attempts", columns, rows)


def without(cells: list[str], position: int) -> list[str]:
    return cells[:position] + cells[position + 1 :]
