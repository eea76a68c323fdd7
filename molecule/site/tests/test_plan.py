"""`plan` beside what is live: nothing to do, something to do, and a host that does not answer."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import testinfra
from modelyard_playbook import ansible_playbook


def changes(*arguments: str) -> str:
    """What `plan` says would change."""
    done = ansible_playbook("../../playbooks/plan.yml", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "planted" not in done.stdout + done.stderr
    return re.sub(r"^ {8}", "", done.stdout.partition("Pending changes\n")[2], flags=re.MULTILINE)


def override(**values: Any) -> tuple[str, str]:
    return "-e", json.dumps({"llm_overrides_test": values})


@contextlib.contextmanager
def unreachable(host: Any, seconds: int) -> Iterator[None]:
    """Drop all that a host answers to this machine. It ends that by itself: nobody could log in to
    do it."""
    here = host.check_output("echo $SSH_CONNECTION").split()[0]
    away = f"ip route add blackhole {here}; sleep {seconds}; ip route del blackhole {here}"
    host.check_output(f"systemd-run --quiet sh -c 'sleep 1; {away}'")
    started = time.monotonic()
    time.sleep(2)
    try:
        yield
    finally:
        time.sleep(max(0.0, started + seconds + 2 - time.monotonic()))


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_what_was_applied_changes_nothing(
    arguments: tuple[str, ...], measured: Callable[[str], None]
) -> None:
    started = time.monotonic()
    text = changes(*arguments)
    measured(f"plan of two hosts took {time.monotonic() - started:.1f} s")
    assert "  gateway: nothing, 4 services as planned\n" in text
    assert "  engine: nothing, 2 services as planned\n" in text


def test_a_setting_is_named_with_both_values() -> None:
    text = changes(*override(gateway={"cooldown_s": 31}))
    assert re.search(r"^    change   litellm \(live since 20\d\d-.*Z\)$", text, re.MULTILINE), text
    assert "document.router_settings.cooldown_time: 30 → 31\n" in text
    assert "    keep     redis, llama-cpp@stand-by, haproxy\n" in text
    assert "  engine: nothing, 2 services as planned\n" in text


def test_a_model_that_goes_away() -> None:
    fallbacks = {"llama-cpp-native": {"chain": None, "terminal": True}, "stand-by": None}
    models = {"llama_cpp_native": {"models": {"stand-by": None}}}
    text = changes(*override(providers=models, routing={"fallbacks": fallbacks}))
    assert "    remove   llama-cpp@stand-by (live since " in text
    assert "model stand-by removed\n" in text
    assert "    public names to be removed: stand-by\n" in text
    assert "-e llm_allow_removal=true" in text


def test_host_that_was_not_asked() -> None:
    text = changes("--limit", "gateway")
    assert "  gateway: nothing, 4 services as planned\n" in text
    assert "  engine: live releases are not known (not asked (--limit))\n" in text


@pytest.mark.parametrize(
    ("connection", "reason"),
    [
        pytest.param("fresh", "not reachable: connect to host ", marks=pytest.mark.full),
        ("kept", "Task failed: Timed out after 15 second(s)."),
    ],
)
def test_host_that_does_not_answer(
    connection: str, reason: str, monkeypatch: pytest.MonkeyPatch, measured: Callable[[str], None]
) -> None:
    """The lab's inventory keeps connections in a place of its own, which `plan` cannot know."""
    if connection == "fresh":
        monkeypatch.setenv("ANSIBLE_SSH_ARGS", "-o ControlPath=none")
    with unreachable(testinfra.get_host("ansible://engine"), seconds=30):
        started = time.monotonic()
        text = changes()
        seconds = time.monotonic() - started
    assert "  gateway: nothing, 4 services as planned\n" in text
    assert f"  engine: live releases are not known ({reason}" in text
    assert seconds < 25, seconds
    measured(
        f"plan with a host that does not answer on a {connection} connection took {seconds:.1f} s"
    )
