"""A chain of models for every class of error: who the real gateway calls for its head, and what a
client sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from faults import Fault
from harness import Answer, Gateway
from stubs import Knocks, Stubs

PORT = 8000
"""Where the stubs listen: on 192.0.2.1 the first letter of a chain, on 192.0.2.2 the second, and so
on."""

CLOSED_PORTS = {False: 9, True: 10}
"""Where nothing listens, for requests that are no streams and for streams: so their attempts are
told apart."""

KNOCKS = range(9, 11)

STOPPED_PORTS = {False: 8001, True: 8002}
"""Where the last step of a chain of refused connections listens, until it is its turn to fail."""


def name(fault: Fault, stream: bool, letter: str) -> str:
    """The model of a chain."""
    return f"{fault.slug}.{'stream' if stream else 'whole'}.{letter}"


def is_silent(fault: Fault) -> bool:
    """Whether the fault lasts until somebody's time-out."""
    return (
        fault.behaviour is not None
        and fault.behaviour.until != "end"
        and fault.behaviour.then == "silence"
    )


def catalogue(
    pairs: Iterable[tuple[Fault, bool]], steps: Mapping[str, str], gateway: Any
) -> dict[str, Any]:
    """Models of its own for every class of error, for requests and for streams: cool-downs stay
    apart.

    `steps` gives each letter those that step in for it. Nobody steps in for the last one, which can
    always answer.
    """
    providers: dict[str, Any] = {}
    fallbacks: dict[str, Any] = {}
    *_, last = steps
    for fault, stream in pairs:
        for host, (letter, chain) in enumerate(steps.items(), start=1):
            kind = fault.provider if letter != last else "openai_compatible"
            port = PORT
            if fault.behaviour is None:
                port = (STOPPED_PORTS if letter == last else CLOSED_PORTS)[stream]
            path = "" if kind == "anthropic" else "/v1"
            provider = {
                "type": kind,
                "base_url": f"http://192.0.2.{host}:{port}{path}",
                "models": [],
            }
            if kind == "anthropic":
                provider["api_key_env"] = "ANTHROPIC_API_KEY"
            entry = providers.setdefault(f"{kind}-{host}-{port}", provider)
            entry["models"].append({"name": name(fault, stream, letter)})
            behind = (
                {"chain": [name(fault, stream, one) for one in chain]}
                if chain
                else {"terminal": True}
            )
            fallbacks[name(fault, stream, letter)] = behind
    return {
        "llm_providers": providers,
        "llm_routing": {"fallbacks": fallbacks},
        "llm_gateway": gateway,
    }


def listen(stubs: Stubs, steps: Mapping[str, str]) -> None:
    """Start the stubs of such a catalogue."""
    for host, _ in enumerate(steps, start=1):
        stubs.listen(f"192.0.2.{host}", PORT)
    for port in STOPPED_PORTS.values():
        stubs.listen(f"192.0.2.{len(steps)}", port)


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
        text = "part of an answer" if answer.text else "no text"
        if answer.status != 200:
            return f"{answer.status}" if answer.status else "nothing"
        if answer.error is not None:
            return f"200{who}, {text}, then error {answer.error.get('code')}"
        if not answer.done:
            return f"200{who}, {text}, no end"
        return f"200{who}" if answer.text else f"200{who}, no text"


def ask(
    gateway: Gateway,
    stubs: Stubs,
    knocks: Knocks,
    fault: Fault,
    stream: bool,
    letters: str,
    *,
    timeout_s: float = 60,
) -> Seen:
    """Ask for the head of a chain, once, and wait as long as this for the next part of an
    answer."""
    models = [name(fault, stream, letter) for letter in letters]
    first, first_knock = len(stubs.calls), len(knocks.seen)
    answer = gateway.chat(models[0], stream=stream, timeout_s=timeout_s)
    called = [call.model[-1] for call in stubs.calls[first:] if call.model in models]
    refused = [
        (address, at) for address, at in knocks.seen[first_knock:] if at == CLOSED_PORTS[stream]
    ]
    knocked = (
        [letters[int(address[-1]) - 1] for address, _ in refused] if fault.behaviour is None else []
    )
    return Seen(" ".join([*knocked, *called]), answer)
