"""What the tests of this scenario ask the host `one`, and have done to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import chat

KEY = "sk-planted-master-key"
MODEL, STAND_BY, CARD = "llama-cpp-native", "stand-by", "card-a"
SERVICES = "/opt/modelyard/services"
ALL = ("redis", "haproxy", "litellm", f"llama-cpp@{MODEL}", f"llama-cpp@{STAND_BY}")
"""The services that the tests change; `CARD` is that of test_switch.py alone."""

ASK_THE_DOOR = (
    "import socket; s = socket.socket(socket.AF_UNIX);"
    ' s.connect("/run/modelyard-haproxy/admin.sock"); s.sendall(b"show info\\n");'
    " print(s.makefile().read())"
)


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def answers(door: str) -> bool:
    try:
        return bool(json.loads(chat(door, KEY, MODEL))["choices"])
    except OSError:
        return False


def answered_by(door: str, model: str) -> str:
    """The name of the model that answers for `model`."""
    return str(json.loads(chat(door, KEY, model))["model"])


def lab(*arguments: str) -> str:
    command = [SCENARIO.parents[1] / "lab/lab", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def site(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml, as a user does."""
    return ansible_playbook("converge.yml", *arguments)


def live(one: Any, name: str) -> str:
    return os.path.basename(one.check_output(f"readlink {SERVICES}/{name}/current"))


def unit_of(one: Any, name: str) -> str:
    if name != "litellm":
        return f"modelyard-{name}"
    active = one.run(
        "systemctl list-units --plain --no-legend --state=active 'modelyard-litellm@*'"
    ).stdout.split()
    return str(active[0]) if active else "modelyard-litellm@none"


def runs(one: Any, name: str) -> str:
    """The release that a service's process was started from; empty if nothing runs."""
    if name == "haproxy":  # a reload keeps its process, the configuration says what it is
        shown = one.run(f"python3 -c '{ASK_THE_DOOR}' | sed -n 's/^description: //p'").stdout
        return os.path.basename(shown.strip())
    shown = one.run(
        f'pid=$(systemctl show --value --property=MainPID {unit_of(one, name)}); test "$pid" != 0'
        " && tr '\\0' '\\n' < /proc/$pid/environ | sed -n 's/^MODELYARD_RELEASE=//p'"
    ).stdout
    return os.path.basename(shown.strip())
