"""Every engine of the catalogue on three hosts, with real servers; in full, models are switched
under traffic.

Ollama is built from source by Go and vLLM is its build for processors, because official archives
and GPUs are out of reach here; the models are tiny and random.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import testinfra
from modelyard_playbook import ansible_playbook
from modelyard_traffic import Traffic, chat

INVENTORY = Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"]).resolve() / "inventory"
CHOICE = INVENTORY.resolve() / "group_vars/llm_stack/switched.yml"
LOCAL = [
    "llama3.1:latest",
    "qwen2.5-coder:7b",
    "mythomax-l2-13b-q5_k_m",
    "llama-cpp-default",
    "llama-cpp-native",
    "qwen-coder-vllm",
]
QWEN, DOLPHIN = "qwen-coder-vllm", "dolphin-uncensored-vllm"
PORTS = {"ollama": 11434, "llama-cpp": 8080, "llama-cpp-python": 8000}


def host(name: str) -> Any:
    return testinfra.get_host(f"ansible://{name}")


def address(name: str) -> str:
    return str(host(name).ansible.get_variables()["ansible_host"])


def playbook(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return ansible_playbook(f"../../{name}", *arguments)


def switch(provider: str, model: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return playbook(
        "playbooks/switch_model.yml",
        "-e",
        f"provider={provider}",
        "-e",
        f"model={model}",
        *arguments,
    )


def answered_by(door: str, key: str, model: str) -> str:
    return str(json.loads(chat(door, key, model))["model"])


def wait_until(condition: Any, what: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(1)


@pytest.mark.parametrize("model", LOCAL)
def test_every_local_model_answers(door: str, key: str, model: str) -> None:
    assert answered_by(door, key, model) == model
    assert chat(door, key, model, stream=True).rstrip().endswith("data: [DONE]")


def test_name_of_the_model_that_is_switched_off_is_answered_too(door: str, key: str) -> None:
    # The gateway's answer carries the name that was asked for.
    assert answered_by(door, key, DOLPHIN) == DOLPHIN
    assert host("lab2").run("systemctl cat modelyard-vllm@dolphin-uncensored-vllm").rc != 0


def test_two_engines_on_one_host_and_their_sandboxes() -> None:
    limits = {
        "lab1": {"ollama@ollama": 1.6, "llama-cpp@": 1.6, "llama-cpp-python@": 1.6},
        "lab2": {"vllm@": 3.0},
    }
    for name, engines in limits.items():
        # Asked by Prometheus on another host, so not on loopback.
        wanted = engines | {"exporter@node": 1.6, "exporter@host": 2.0}
        on = host(name)
        units = on.check_output(
            "systemctl list-units --plain --no-legend 'modelyard-*@*.service' | cut -d' ' -f1"
        ).split()
        assert len(units) == len(wanted)
        for prefix, limit in wanted.items():
            (unit,) = [unit for unit in units if unit.startswith(f"modelyard-{prefix}")]
            score = on.check_output(
                f"systemd-analyze security {unit} | tail -1 | grep -oE '[0-9]+\\.[0-9]+'"
            )
            print(f"systemd-analyze security {unit}: {score}")
            assert float(score) <= limit


@pytest.mark.parametrize("engine", PORTS)
def test_only_the_gateway_gets_through_to_an_engine(engine: str) -> None:
    """Ollama knows no keys: whoever reaches it can use it, and delete its models."""
    target = f"{address('lab1')}/{PORTS[engine]}"
    attempt = f"timeout 5 bash -c '</dev/tcp/{target}'"
    assert host("lab3").run(attempt).rc == 0
    refused = host("lab2").run(attempt)
    assert refused.rc == 1
    assert "refused" in refused.stderr
    assert host("lab1").run(attempt).rc == 0


def test_only_the_gateway_gets_through_to_vllm() -> None:
    attempt = f"timeout 5 bash -c '</dev/tcp/{address('lab2')}/8001'"
    assert host("lab3").run(attempt).rc == 0
    assert host("lab1").run(attempt).rc == 1


FATAL: list[tuple[str, dict[str, Any]]] = [
    ("llama-cpp-default", {"grammar": "no grammar"}),
    ("llama-cpp-default", {"response_format": {"type": "json_object", "schema": {"enum": []}}}),
    *(
        (
            "llama3.1:latest",
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": schema},
                }
            },
        )
        for schema in (
            {"type": "string", "pattern": "^(?=a)b$"},
            {"type": "string", "minLength": 5000},
            {"anyOf": []},
        )
    ),
]
"""By model what ends its engine, asked directly."""


def processes() -> str:
    """The processes of the two engines on lab1, and those below Ollama."""
    python = "systemctl show --property=MainPID --value 'modelyard-llama-cpp-python@*'"
    return str(host("lab1").check_output(f"{python}; pgrep -x ollama"))


@pytest.mark.parametrize(("model", "fields"), FATAL)
def test_a_request_does_not_end_an_engine(
    door: str, key: str, model: str, fields: dict[str, Any]
) -> None:
    assert answered_by(door, key, model) == model
    before = processes()
    body = {
        "model": model,
        "max_tokens": 2,
        "messages": [{"role": "user", "content": "x"}],
        "disable_fallbacks": True,
        **fields,
    }
    request = urllib.request.Request(
        f"{door}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code == 400
    assert json.load(refused.value)["error"]["param"] in fields
    assert processes() == before
    assert answered_by(door, key, model) == model


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "unit", "model"),
    [
        ("lab1", "modelyard-ollama@ollama", "llama3.1:latest"),
        ("lab1", "modelyard-llama-cpp-python@llama-cpp-default", "llama-cpp-default"),
    ],
)
def test_engine_that_crashes_comes_back_into_the_route(
    door: str, key: str, name: str, unit: str, model: str
) -> None:
    """Meanwhile whoever steps in for it answers."""
    host(name).check_output(f"systemctl kill --signal=KILL {unit}")
    assert chat(door, key, model)
    # A deployment that failed twice is left alone for half a minute.
    wait_until(lambda: answered_by(door, key, model) == model, f"{model} is not back", 180)


def test_plan_agrees_with_what_is_live() -> None:
    shown = playbook("playbooks/plan.yml")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("as planned") == 3, shown.stdout


@pytest.mark.full
def test_switching_to_another_vllm_and_back(door: str, key: str) -> None:
    """A client that asks for either name all the while sees no error, and the next run keeps the
    choice."""
    try:
        with (
            Traffic(door, key, QWEN, rate=1, max_s=1200) as first,
            Traffic(door, key, DOLPHIN, rate=1, max_s=1200) as second,
        ):
            began = time.monotonic()
            done = switch("vllm-dolphin", DOLPHIN)
            took = time.monotonic() - began
        assert done.returncode == 0, done.stdout + done.stderr
        print(
            f"switched vLLM's model in {took:.0f} s: {first.answered} + {second.answered} requests"
            f" and {first.streams} + {second.streams} streams,"
            f" {len(first.failures) + len(second.failures)} failed"
        )
        assert first.failures == second.failures == []
        assert first.answered > 10
        assert second.answered > 10
        assert answered_by(door, key, DOLPHIN) == DOLPHIN
        assert answered_by(door, key, QWEN) == QWEN
        units = (
            "systemctl is-active modelyard-vllm@qwen-coder-vllm"
            " modelyard-vllm@dolphin-uncensored-vllm"
        )
        assert host("lab2").run(units).stdout.split() == ["inactive", "active"]
        again = playbook("site.yml")
        assert again.returncode == 0, again.stdout + again.stderr
        assert "changed=0" in again.stdout
        assert answered_by(door, key, DOLPHIN) == DOLPHIN
        same = switch("vllm-dolphin", DOLPHIN)
        assert same.returncode == 0, same.stdout + same.stderr
        assert "runs already: nothing to do" in same.stdout
        back = switch("vllm-qwen", QWEN)
        assert back.returncode == 0, back.stdout + back.stderr
        assert answered_by(door, key, QWEN) == QWEN
    finally:
        CHOICE.unlink(missing_ok=True)


def test_switch_to_what_does_not_exist_touches_nothing() -> None:
    refused = switch("vllm-qwen", "qwen-codr-vllm")
    assert refused.returncode != 0
    assert 'did you mean "qwen-coder-vllm"' in refused.stdout + refused.stderr


def test_second_switch_at_the_same_time_is_told_who_is_at_work() -> None:
    lock = INVENTORY.resolve() / ".modelyard.lock"
    stat = Path("/proc/1/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    owner = {
        "host": os.uname().nodename,
        "pid": 1,
        "started": stat,
        "user": "somebody",
        "since": "2026-01-01 00:00:00 UTC",
        "purpose": "playbooks/switch_model.yml",
    }
    lock.write_text(json.dumps(owner), encoding="utf-8")
    try:
        refused = switch("vllm-dolphin", DOLPHIN)
        assert refused.returncode != 0
        assert "somebody@" in refused.stdout + refused.stderr
    finally:
        lock.unlink()
