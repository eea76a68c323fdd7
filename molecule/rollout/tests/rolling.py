"""What the tests of this scenario ask its hosts and have done to them, and what clients saw."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import testinfra
from modelyard_playbook import SCENARIO, ansible_playbook
from modelyard_traffic import Traffic

KEY = "sk-planted-master-key"
MODEL = "llama-cpp-native"
SERVICE = f"llama-cpp@{MODEL}"
UNIT = f"modelyard-{SERVICE}"
POOL = f"pool.llama_cpp_native.{MODEL}"
GATEWAYS, ENGINES = ("g1", "g2"), ("e1", "e2")
CONTEXT = 4096
"""The model's context in the scenario's inventory. Its changes differ in this."""
RATE = 1.0
"""Requests a second, and streams, of each gateway. At three of both with a load of 13 on two cores
they came faster than they were answered, and waited for a minute."""
DRAIN_BEGINS, CHANGE_BEGINS = "Send it no more requests", "Activate the instance]"
"""What a line of a run has when a host is drained, and when its engine changes."""

ASK_THE_DOOR = """
import json, socket
def ask(command):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect("/run/modelyard-haproxy/admin.sock")
        client.sendall(command.encode() + b"\\n")
        return [line.lstrip("# ") for line in client.makefile()]
def rows(command, split):
    names, *lines = [line.split(split) for line in ask(command) if line.strip() not in ("", "1")]
    return [dict(zip(names, line)) for line in lines]
found = {}
for row in rows("show servers state", None):
    if row["be_name"].startswith("pool."):
        found[row["srv_name"]] = {"told": int(row["srv_admin_state"]) & 9 and "drain" or "ready"}
for row in rows("show stat", ","):
    if row["pxname"].startswith("pool.") and row["svname"] in found:
        found[row["svname"]]["state"] = row["status"]
print(json.dumps(found))
"""
"""Prints of each server of the one pool what HAProxy was told (its state in the statistics does not
tell of a drain while it is down), and that state."""


def host(name: str) -> Any:
    return testinfra.get_host(f"ansible://{name}")


def address(name: str) -> str:
    return str(host(name).ansible.get_variables()["ansible_host"])


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 60) -> float:
    """Wait; returns for how many seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() < began + limit_s, what
        time.sleep(0.5)
    return time.monotonic() - began


# -- the pool --------------------------------------------------------------------------------------


def asked(gateway: str, key: str) -> dict[str, str]:
    found = json.loads(host(gateway).check_output("python3 -c %s", ASK_THE_DOOR))
    assert found, "no host is in the pool"
    return {name: str(server[key]) for name, server in found.items()}


def pool(gateway: str) -> dict[str, str]:
    """The state of each host in the pool, as a gateway's front end sees it."""
    return asked(gateway, "state")


def tell(gateway: str, name: str, state: str) -> None:
    """Have one gateway send a host requests (`ready`), or none (`drain`)."""
    command = f"set server {POOL}/{name} state {state}"
    send = (
        "import socket; s = socket.socket(socket.AF_UNIX);"
        f" s.connect('/run/modelyard-haproxy/admin.sock'); s.sendall(b'{command}\\n');"
        " print(s.makefile().read())"
    )
    assert host(gateway).check_output("python3 -c %s", send).strip() == ""


def pools() -> dict[str, dict[str, str]]:
    return {gateway: pool(gateway) for gateway in GATEWAYS}


def drained() -> list[str]:
    """The hosts that a gateway sends nothing, as somebody told it to."""
    return [
        f"{name} in {gateway}"
        for gateway in GATEWAYS
        for name, told in asked(gateway, "told").items()
        if told == "drain"
    ]


def whole() -> bool:
    """Whether every gateway has every host of its pool up."""
    return all(state == "UP" for found in pools().values() for state in found.values())


# -- the engines -----------------------------------------------------------------------------------


def live(name: str) -> str:
    """The live release of the engine of a host."""
    link = host(name).check_output(f"readlink /opt/modelyard/services/{SERVICE}/current")
    return os.path.basename(link)


def shown(name: str, unit: str, key: str) -> str:
    return str(host(name).check_output(f"systemctl show --value --property={key} {unit}"))


def process(name: str, unit: str) -> str:
    """What tells a process of a unit from the next."""
    return f"{shown(name, unit, 'MainPID')} {shown(name, unit, 'InvocationID')}"


def began(name: str) -> str:
    """What tells a process of the engine from the next."""
    return process(name, UNIT)


def runs_what_is_live(name: str) -> bool:
    process = shown(name, UNIT, "MainPID")
    told = host(name).run(f"tr '\\0' '\\n' < /proc/{process}/environ")
    return f"/{live(name)}" in told.stdout and process != "0"


# -- runs ------------------------------------------------------------------------------------------


_NUMBERS = itertools.count(int(time.time()) % 1000)


def change(model: Mapping[str, Any] = MappingProxyType({}), **rollout: Any) -> tuple[str, ...]:
    """A change of the model that was never made here, on the command line: `model` is more of it,
    `rollout` how it reaches the hosts."""
    changed = {"name": MODEL, "context_length": CONTEXT + next(_NUMBERS), **model}
    catalogue = {"providers": {"llama_cpp_native": {"models": [changed]}}, "rollout": rollout}
    return "-e", json.dumps({"llm_overrides_test": catalogue})


def site(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run site.yml, as a user does."""
    return ansible_playbook("converge.yml", *arguments)


class Run:
    """A run of site.yml in a process group of its own, read line by line."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            ["ansible-playbook", "converge.yml", *arguments],
            cwd=SCENARIO,
            # A task is named when it begins, not with its first result that is shown.
            env={
                **os.environ,
                "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true",
                "PYTHONUNBUFFERED": "1",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill it with all its processes, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def read_until(self, text: str, times: int = 1) -> None:
        """Read until the text has come so many times."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line
            times -= text in line
            if times == 0:
                return
        raise AssertionError(f"the run ended before `{text}`:\n{self.output}")

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        self.output += self.process.communicate(timeout=900)[0]
        code = self.process.returncode
        return subprocess.CompletedProcess([], code, self.output, "")


def table(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """What the table of a run that failed says of each host."""
    rows = (line.split() for line in done.stdout.splitlines() if line.strip().startswith("wave "))
    return {host: " ".join(state) for _wave, _number, host, *state in rows}


# -- clients ---------------------------------------------------------------------------------------


@dataclass
class Seen:
    """What clients of both gateways saw."""

    traffic: Sequence[Traffic]

    @property
    def failures(self) -> list[str]:
        return [failure for one in self.traffic for failure in one.failures]

    def __str__(self) -> str:
        cut = sum(failure.startswith("stream") for failure in self.failures)
        failed = len(self.failures) - cut
        streams = sum(one.streams for one in self.traffic) + cut
        requests = sum(one.answered for one in self.traffic) + failed
        return f"{failed} of {requests} requests failed, {cut} of {streams} streams cut"


Row = Callable[[str, float, Seen | str], None]
"""What adds a row to the table: what happened, for how many seconds, what clients saw."""


@contextlib.contextmanager
def clients(doors: Mapping[str, str]) -> Iterator[Seen]:
    """Requests and streams through every gateway, until the block ends."""
    with contextlib.ExitStack() as stack:
        yield Seen(
            [
                stack.enter_context(Traffic(url, KEY, MODEL, rate=RATE, max_s=1800))
                for url in doors.values()
            ]
        )


@dataclass
class Stream:
    """One long stream through a gateway, read by a thread. Times are of the kernel's monotonic
    clock, which is systemd's on the lab's hosts, too."""

    door: str
    tokens: int = 0
    ended: float | None = None
    """When it ended, whole or not."""
    done: bool = False
    """Whether its end came."""
    error: str = ""
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "Tell me everything"}],
            "max_tokens": CONTEXT - 200,
            "logit_bias": {"2": -100},  # never the token that ends an answer
            "stream": True,
        }
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        url = f"{self.door}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                for line in response:
                    self.tokens += b'"content"' in line
                    self.done |= line.startswith(b"data: [DONE]")
                    if b'"error"' in line:
                        self.error = line.decode()
        except OSError as error:
            self.error = repr(error)
        self.ended = time.clock_gettime(time.CLOCK_MONOTONIC)

    def join(self) -> None:
        self._thread.join(180)
        assert self.ended, "the stream does not end"


def stream_on(name: str, gateway: str, door: str) -> Stream:
    """Begin a stream that a certain host tells: the gateway has no other meanwhile."""
    others = [other for other in pool(gateway) if other != name]
    for other in others:
        tell(gateway, other, "drain")
    try:
        stream = Stream(door)
        wait_until(lambda: stream.tokens or stream.ended, "the stream does not begin")
        assert stream.tokens, stream.error
    finally:
        for other in others:
            tell(gateway, other, "ready")
    return stream


@contextlib.contextmanager
def slow(name: str) -> Iterator[Callable[[], None]]:
    """Make the engine of a host generate many times slower, as a big model does; until the
    block ends, or what it yields is called. Its health is still answered in time."""
    there = host(name)
    loop = (
        f"pid=$(systemctl show --value --property=MainPID {UNIT}); while [ -e /srv/slow ]; do"
        " kill -STOP $pid; sleep 0.5; kill -CONT $pid || exit 0; sleep 0.005; done"
    )

    def fast() -> None:
        there.run("rm -f /srv/slow")

    there.check_output(f"touch /srv/slow; systemd-run --collect --quiet --unit=slow sh -c '{loop}'")
    try:
        yield fast
    finally:
        fast()
        wait_until(lambda: there.run("systemctl is-active slow").rc != 0, "it stays slow")


# -- the network -----------------------------------------------------------------------------------


def local(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def port(name: str) -> str:
    """The interface of this machine that a host's network ends at."""
    number = host(name).check_output("cat /sys/class/net/host0/iflink")
    return local(
        "sh", "-c", f"ip -oneline link | sed -n 's/^{number}: \\([^@:]*\\).*/\\1/p'"
    ).strip()


@contextlib.contextmanager
def silent(name: str) -> Iterator[None]:
    """A host that nobody hears any more, as one without power: no refusal, silence."""
    interface, known = port(name), host(name).ansible.get_variables()
    bridge = json.loads(local("ip", "-json", "link", "show", interface))[0]["master"]
    # Connections are kept open for a minute, and runs are further apart.
    shut = ["ssh", *known["ansible_ssh_common_args"].split(), "-O", "exit"]
    subprocess.run([*shut, f"root@{known['ansible_host']}"], check=False, capture_output=True)
    local("ip", "link", "set", interface, "nomaster")
    try:
        yield
    finally:
        local("ip", "link", "set", interface, "master", bridge)


@contextlib.contextmanager
def without_ssh(name: str) -> Iterator[None]:
    """A host that this machine no longer reaches by SSH, while the others do what they did."""
    rules = (
        "add table inet rollout { chain input { type filter hook input priority filter;"
        f" ip saddr {address(name)} tcp sport 22 drop; }}; }}"
    )
    local("nft", rules)
    try:
        yield
    finally:
        local("nft", "delete", "table", "inet", "rollout")
