"""The order of attempts: what the compiler says it is, and what the real gateway does, for every class of error."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from faults import FAULTS, Fault
from harness import Answer, Gateway, compiled, document, order
from stubs import OK, Knocks, Stubs
from tables import SECONDS, Tables

from modelyard.compiler import Compiled

T = TypeVar("T")

LETTERS = "abdc"
"""a falls back to [b, c], b to [d], d to [c]: compiled, a's order is a b d c. c is the last step and never cooled."""

CLOSED_PORTS = {False: 9, True: 10}
"""Where nothing listens, for requests that are no streams and for streams: so their attempts are told apart."""

STOPPED_PORTS = {False: 8001, True: 8002}
"""Where the last step of such a chain listens, until it is its turn to fail."""

TIMEOUT_S = 1

COOLDOWN_S = 300
"""Longer than the gateway remembers anything else: of its 200 memories it drops those that end first, so that with this
many models the failures it has counted would be gone at once (see test_cooldown.py)."""

BROKEN_STREAMS = {"silent-headers", "silent-role", "cut-headers", "cut-role"}
"""Streams that break before there is any text: the first step is passed over, a second one that does so is not."""

HALF_ANSWERS = {"silent-token", "cut-token"}
"""Streams that break when the client has read a part of the answer: nobody steps in."""

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


def name(fault: Fault, stream: bool, letter: str) -> str:
    return f"{fault.slug}.{'stream' if stream else 'whole'}.{letter}"


def catalogue() -> dict[str, Any]:
    """Four models of its own for every class of error, for requests and for streams: cool-downs stay apart."""
    providers: dict[str, Any] = {}
    fallbacks: dict[str, Any] = {}
    for fault in FAULTS:
        for stream in (False, True):
            for host, letter in enumerate(LETTERS, start=1):
                kind = fault.provider if letter != "c" else "openai_compatible"
                port = 8000
                if fault.behaviour is None:
                    port = (STOPPED_PORTS if letter == "c" else CLOSED_PORTS)[stream]
                path = "" if kind == "anthropic" else "/v1"
                provider = {"type": kind, "base_url": f"http://192.0.2.{host}:{port}{path}", "models": []}
                if kind == "anthropic":
                    provider["api_key_env"] = "ANTHROPIC_API_KEY"
                entry = providers.setdefault(f"{kind}-{host}-{port}", provider)
                entry["models"].append({"name": name(fault, stream, letter)})
            a, b, d, c = (name(fault, stream, letter) for letter in LETTERS)
            fallbacks |= {a: {"chain": [b, c]}, b: {"chain": [d]}, d: {"chain": [c]}, c: {"terminal": True}}
    return {
        "llm_providers": providers,
        "llm_routing": {"fallbacks": fallbacks},
        "llm_gateway": {"cooldown_s": COOLDOWN_S, "timeouts": {"request_s": TIMEOUT_S, "stream_s": TIMEOUT_S}},
    }


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
class Seen:
    """What one request did: who was called, in order, and what came back."""

    calls: str
    answer: Answer

    @property
    def client(self) -> str:
        """What the client saw."""
        answer = self.answer
        who = f" from {answer.model[-1]}" if answer.model else ""
        if answer.error is None:
            return f"{answer.status}{who}"
        if answer.status != 200:
            return f"{answer.status}"
        text = "part of an answer" if answer.text else "no text"
        return f"200{who}, {text}, then error {answer.error.get('code')}"


@dataclass(frozen=True, slots=True)
class Observed:
    """Three requests to one chain: all but the last step fail; all fail; again all but the last step fail."""

    first: Seen
    exhausted: Seen
    afterwards: Seen


def observe(gateway: Gateway, stubs: Stubs, knocks: Knocks, fault: Fault, stream: bool) -> Observed:
    a, b, d, c = (name(fault, stream, letter) for letter in LETTERS)

    def ask() -> Seen:
        first, first_knock = len(stubs.calls), len(knocks.seen)
        answer = gateway.chat(a, stream=stream)
        called = [call.model for call in stubs.calls[first:] if call.model in (a, b, d, c)]
        port = CLOSED_PORTS[stream]
        knocked = [LETTERS[int(address[-1]) - 1] for address, at in knocks.seen[first_knock:] if at == port]
        letters = [*(knocked if fault.behaviour is None else ()), *(model[-1] for model in called)]
        return Seen(" ".join(letters), answer)

    for model in (a, b, d):
        stubs.behaviours[model] = fault.behaviour or OK
    first = ask()
    spare = stubs.listen("192.0.2.4", STOPPED_PORTS[stream])
    if fault.behaviour is None:
        spare.stop()
    stubs.behaviours[c] = fault.behaviour or OK
    exhausted = ask()
    if fault.behaviour is None:
        spare.start()
    stubs.behaviours[c] = OK
    return Observed(first, exhausted, ask())


def each(what: Callable[[Fault, bool], T]) -> dict[tuple[str, bool], T]:
    """Do something for every class of error, with and without a stream; those that wait for a time-out together."""
    waiting = [pair for pair in PAIRS if is_silent(pair[0])]
    others = [pair for pair in PAIRS if not is_silent(pair[0])]
    with ThreadPoolExecutor(len(waiting)) as pool:
        done = [*pool.map(lambda pair: what(*pair), waiting), *(what(*pair) for pair in others)]
    return {(fault.slug, stream): one for (fault, stream), one in zip([*waiting, *others], done, strict=True)}


def is_silent(fault: Fault) -> bool:
    return fault.behaviour is not None and fault.behaviour.until != "end" and fault.behaviour.then == "silence"


@pytest.fixture(scope="module")
def start(environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Compiled], Gateway]:
    for host, _ in enumerate(LETTERS, start=1):
        stubs.listen(f"192.0.2.{host}", 8000)
    for port in STOPPED_PORTS.values():
        stubs.listen("192.0.2.4", port)
    return lambda result: Gateway(environment, document(result), tmp_path_factory.mktemp("order"))


@pytest.fixture(scope="module")
def result() -> Compiled:
    return compiled(yaml.safe_dump(catalogue(), sort_keys=False), secrets=["ANTHROPIC_API_KEY"])


@pytest.fixture(scope="module")
def observed(start: Callable[[Compiled], Gateway], result: Compiled, stubs: Stubs) -> dict[tuple[str, bool], Observed]:
    with start(result) as gateway, Knocks(range(9, 11)) as knocks:
        for stream in (False, True):  # The first request of all takes half a second more.
            gateway.chat(name(FAULTS[0], stream, "c"), stream=stream)
        return each(lambda fault, stream: observe(gateway, stubs, knocks, fault, stream))


@pytest.fixture(scope="module")
def stepped_in(start: Callable[[Compiled], Gateway], stubs: Stubs) -> dict[tuple[str, bool], str]:
    """Who answered, where each kind of error has a chain of its own."""
    result = compiled(yaml.safe_dump(with_chains_of_each_kind(), sort_keys=False), secrets=["ANTHROPIC_API_KEY"])
    with start(result) as gateway:

        def ask(fault: Fault, stream: bool) -> str:
            head = name(fault, stream, "a")
            stubs.behaviours[head] = fault.behaviour or OK
            answer = gateway.chat(head, stream=stream)
            said = answer.text.removeprefix("I am ")
            return said if said in STEPS else "nobody"

        return each(ask)


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_calls_are_the_compiled_order(
    observed: dict[tuple[str, bool], Observed], result: Compiled, fault: Fault, stream: bool
) -> None:
    one = observed[fault.slug, stream]
    planned = [model[-1] for model in order(result, name(fault, stream, "a"))]
    assert planned == ["a", "b", "d", "c"]
    if fault.slug in NO_ERROR or (stream and fault.slug in HALF_ANSWERS):
        planned = planned[:1]
    elif stream and fault.slug in BROKEN_STREAMS:
        planned = planned[:2]
    assert one.first.calls.split() == planned
    assert (one.first.answer.error is None) == (planned[-1] == "c" or fault.slug in NO_ERROR)
    if planned[-1] == "c":
        c = name(fault, stream, "c")
        assert (one.first.answer.status, one.first.answer.model, one.first.answer.text) == (200, c, f"I am {c}")
        assert one.first.answer.done


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_an_attempt_costs_its_timeout_and_no_more(
    observed: dict[tuple[str, bool], Observed], fault: Fault, stream: bool
) -> None:
    """A chain costs the sum of its attempts; nothing sleeps between them. The margin is for a busy machine."""
    one = observed[fault.slug, stream].first
    least = TIMEOUT_S * sum(letter != "c" for letter in one.calls.split()) if is_silent(fault) else 0
    assert least - 0.1 < one.answer.seconds < least + 5


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_what_failed_twice_is_left_alone(
    observed: dict[tuple[str, bool], Observed], fault: Fault, stream: bool
) -> None:
    one = observed[fault.slug, stream]
    broken = stream and fault.slug in BROKEN_STREAMS | HALF_ANSWERS
    assert one.afterwards.calls == (one.first.calls if broken or fault.slug in NEVER_COOLED else "c")


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_an_exhausted_chain_answers_with_the_first_error(
    observed: dict[tuple[str, bool], Observed], fault: Fault, stream: bool
) -> None:
    answer = observed[fault.slug, stream].exhausted.answer
    if fault.slug in NO_ERROR:
        assert answer.status == 200
    else:
        assert answer.error is not None
        assert isinstance(answer.error.get("message"), str)
        assert answer.done == (answer.status != 200)


@pytest.mark.parametrize(("fault", "stream"), PAIRS, ids=IDS)
def test_which_chain(stepped_in: dict[tuple[str, bool], str], fault: Fault, stream: bool) -> None:
    expected: str = "ordinary" if fault.kind == "any" else fault.kind
    if stream and fault.slug in HALF_ANSWERS | {"filtered"}:
        expected = "nobody"
    assert stepped_in[fault.slug, stream] == expected


def test_table(
    observed: dict[tuple[str, bool], Observed], stepped_in: dict[tuple[str, bool], str], tables: Tables
) -> None:
    columns = ["how a, b and d fail", "request", "calls", "client saw", SECONDS, "third time", "c fails too", "chain"]
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
            rows += [[fault.words, "stream" if stream else "whole", *cells[stream]] for stream in (False, True)]
    tables.check("order of attempts", columns, rows)


def without(cells: list[str], position: int) -> list[str]:
    return cells[:position] + cells[position + 1 :]
