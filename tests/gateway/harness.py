"""The real gateway, of the pinned version, in a network namespace of the test process' own.

What it loads is what the compiler emits, written as the role writes it; what it is started with is
read from the role's unit, so that the tests cannot drift away from the product.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import http.client
import importlib.util
import itertools
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import jinja2
import yaml

from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Host, Inventory
from modelyard.controller.sources import cache_directory
from modelyard.names import MASTER_KEY

CLONE = Path(__file__).resolve().parents[2]
ROLE = CLONE / "roles/litellm"
UNIT = ROLE / "templates/modelyard-litellm@.service.j2"
TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader([UNIT.parent, CLONE / "roles/service/templates"]),
    trim_blocks=True,
)
"""Templates as Ansible finds and reads them for the role."""
TEMPLATES.filters["combine"] = lambda first, second: {**first, **second}

CLONE_NEWNET = 0x40000000
"""From <linux/sched.h>."""

HOST_NUMBERS = range(1, 31)
"""192.0.2.N and 2001:db8::N are this machine, inside. Both ranges are for documentation (RFC 5737
and 3849)."""

START_S = 90
"""The gateway starts in 7 to 10 s on two cores; other tests may want them too."""

VERSIONS: dict[str, Any] = yaml.safe_load((CLONE / "group_vars/all/versions.yml").read_text())


# -- the environment -------------------------------------------------------------------------------


def environment() -> Path:
    """Return the gateway's virtual environment, made by the role's own script from the role's own
    locks.

    Kept in the project's cache by content, one for all clones. Needs the package index the first
    time (about half a minute, 0.7 GB). Raises subprocess.CalledProcessError if the script fails.
    """
    version = VERSIONS["llm_versions"]["litellm"]["version"]
    (uv,) = (ROLE / "files/locks").glob("uv-*.txt")
    sources = {
        "lock.txt": ROLE / f"files/locks/litellm-{version}.txt",
        "uv.txt": uv,
        "build.sh": ROLE / "files/build.sh",
    }
    interpreter = f"{platform.machine()} {sys.version_info.major}.{sys.version_info.minor}"
    parts = [interpreter.encode(), *(path.read_bytes() for path in sources.values())]
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    destination = cache_directory() / "gateway" / f"litellm-{version}-{digest}"
    destination.parent.mkdir(parents=True, exist_ok=True)
    # A virtual environment works at its final path only, so it cannot be built aside: the mark says
    # that it is whole.
    mark = destination / ".whole"
    with open(f"{destination}.lock", "w") as lock, tempfile.TemporaryDirectory() as work:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.exists():
            return destination
        shutil.rmtree(destination, ignore_errors=True)
        for name, path in sources.items():
            shutil.copyfile(path, Path(work) / name)
        python = Path(sys.base_prefix) / "bin"
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "PATH": f"{python}:/usr/bin:/bin",
            "SOURCES": work,
            "DEST": str(destination),
            "JOBS": str(os.cpu_count() or 1),
        }
        subprocess.run(["sh", str(sources["build.sh"])], cwd=work, env=variables, check=True)
        mark.touch()
    return destination


# -- the network -----------------------------------------------------------------------------------


def isolate() -> None:
    """Move this thread, and what it starts, into a new network namespace: it ends with the process.
    Needs root.

    Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(
            number, f"a network namespace of the tests' own needs root: {os.strerror(number)}"
        )
    commands = ["link set lo up"]
    for host in HOST_NUMBERS:
        commands += [
            f"address add 192.0.2.{host}/32 dev lo",
            f"address add 2001:db8::{host:x}/128 dev lo nodad",
        ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)


# -- the catalogue ---------------------------------------------------------------------------------


def secret(name: str) -> str:
    """The value of a secret in these tests."""
    return f"sk-{name.lower().replace('_', '-')}"


def compiled(
    text: str,
    groups: Mapping[str, Sequence[str]] | None = None,
    addresses: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> Compiled:
    """Compile a catalogue written as YAML, for a gateway on host `gw` and the hosts of `groups`.

    Raises AssertionError with all messages if it is refused.
    """
    addresses = {"gw": "192.0.2.250", **(addresses or {})}
    groups = {"llm_gateway": ["gw"], **(groups or {})}
    stack = list(dict.fromkeys(host for members in groups.values() for host in members))
    variables = {**VERSIONS, **yaml.safe_load(text)}
    hosts = {host: Host(variables, addresses.get(host, host)) for host in stack}
    result = compile_inventory(Inventory({"llm_stack": stack, **groups}, hosts, frozenset(secrets)))
    assert not result.errors, "\n".join(diagnostic.render() for diagnostic in result.errors)
    return result


def plan(result: Compiled) -> dict[str, Any]:
    """The gateway's part of a compiled plan: its document and the rules of its guard, among
    others."""
    found: dict[str, Any] = result.plans["gw"]["litellm"]
    return found


def document(result: Compiled) -> dict[str, Any]:
    """The gateway's document in a compiled plan."""
    found: dict[str, Any] = plan(result)["document"]
    return found


def order(result: Compiled, name: str) -> list[str]:
    """The compiled order of attempts for a public name."""
    (route,) = (route for route in result.routes if route["name"] == name)
    return [step["model"] for step in route["attempts"]]


# -- the gateway -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client of the gateway saw."""

    status: int
    """0: no answer began in time."""
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Any
    """A stream's is the list of its events."""
    seconds: float
    stream: bool
    done: bool
    """False for a stream that did not end in `[DONE]`."""

    @property
    def events(self) -> list[Any]:
        """The events of a stream, else the one body."""
        return self.body if self.stream else [self.body]

    @property
    def model(self) -> str | None:
        """The model's name in the answer (in a stream: of its first event)."""
        return next(
            (
                event["model"]
                for event in self.events
                if isinstance(event, dict) and "model" in event
            ),
            None,
        )

    @property
    def text(self) -> str:
        """What the model said."""
        parts = []
        for event in self.events:
            for choice in event.get("choices", []) if isinstance(event, dict) else []:
                parts.append(choice.get("delta", choice.get("message", {})).get("content") or "")
        return "".join(parts)

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The error in the body, or in a stream's events."""
        return next(
            (
                event["error"]
                for event in self.events
                if isinstance(event, dict) and "error" in event
            ),
            None,
        )


@dataclass(slots=True)
class Gateway:
    """A running gateway, as a context manager."""

    environment: Path
    plan: Mapping[str, Any]
    """Its document and rules."""
    directory: Path
    """Its release and state; made by the caller, empty."""
    port: int = field(default_factory=itertools.count(4101).__next__)
    workers: int = 1
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment variables of the role's unit, with paths of this
        test."""
        unit = TEMPLATES.get_template(UNIT.name).render(
            {
                "service_name": "litellm",
                "service_user": "modelyard-litellm",
                "__litellm_artifact": {"path": self.environment},
                "litellm_plan": {**self.plan, "workers": self.workers},
            }
        )
        for placeholder, value in (
            ("@RELEASE@", self.directory),
            ("@SLOT@", "blue"),
            ("@PORT@", self.port),
            ("%t", self.directory / "run"),
            ("%S", self.directory / "state"),
        ):
            unit = unit.replace(placeholder, str(value))
        settings = [
            line.split("=", 1)
            for line in unit.splitlines()
            if "=" in line and not line.startswith("#")
        ]
        command = [shlex.split(value) for key, value in settings if key == "ExecStart"]
        words = [
            word for key, value in settings if key == "Environment" for word in shlex.split(value)
        ]
        variables = dict(word.split("=", 1) for word in words)
        secrets = {name: secret(name) for name in secret_names(self.plan["document"])}
        return command[0], {
            "PATH": "/usr/bin:/bin",
            **variables,
            **secrets,
            "HOME": str(self.directory),
        }

    def allow(self, clients: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the file of clients as the role does it. They are as in the plan; the key of each
        is `secret`'s."""
        path = Path(self.command()[1]["MODELYARD_CLIENTS"])
        path.parent.mkdir(parents=True, exist_ok=True)
        given = {client["secret"]: secret(client["secret"]) for client in clients.values()}
        hashes, _generated = _plugin("action").keys(clients, {}, given, path.parent, write=False)
        path.with_suffix(".new").write_text(_plugin("module_utils").content(clients, hashes))
        path.with_suffix(".new").rename(path)

    def __enter__(self) -> Self:
        command, variables = self.command()
        (self.directory / "config").mkdir()
        if "PROMETHEUS_MULTIPROC_DIR" in variables:  # the benchmark's plain install has no metrics
            Path(variables["PROMETHEUS_MULTIPROC_DIR"]).mkdir(parents=True)
        (self.directory / "config/gateway.yaml").write_text(
            json.dumps(self.plan["document"], indent=2) + "\n"
        )
        (self.directory / "config/rules.json").write_text(
            json.dumps(self.plan["rules"], indent=2) + "\n"
        )
        shutil.copytree(
            ROLE / "files/modelyard_gateway", self.directory / "python/modelyard_gateway"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=variables,
                cwd=self.directory,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        try:
            self.wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.directory / "log"

    def wait(self) -> None:
        """Wait until it is ready. Raises AssertionError, with the end of its log, if that does not
        happen."""
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if self.request("GET", "/health/readiness").status == 200:
                    return
            time.sleep(0.1)
        raise AssertionError("the gateway did not get ready:\n" + self.log.read_text()[-4000:])

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = 60,
    ) -> Answer:
        """Send one request with the master key and return what came back, however it ended.

        `timeout_s`: how long nothing may come until it is given up.
        """
        stream = bool(body and body.get("stream"))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        own = {
            "Authorization": f"Bearer {secret(MASTER_KEY)}",
            "Content-Type": "application/json",
            **(headers or {}),
        }
        started = time.monotonic()
        status = 0
        found: dict[str, str] = {}
        parts: list[bytes] = []
        try:
            connection.request(method, path, None if body is None else json.dumps(body), own)
            with suppress(TimeoutError, http.client.IncompleteRead):  # what came until then is kept
                response = connection.getresponse()
                status = response.status
                found = {name.lower(): value for name, value in response.getheaders()}
                while part := response.read1():
                    parts.append(part)
        finally:
            connection.close()
        seconds = time.monotonic() - started
        raw = b"".join(parts)
        stream = stream and found.get("content-type", "").startswith("text/event-stream")
        events = list(_events(raw)) if stream else []
        content = [event for event in events if event != "[DONE]"] if stream else _parsed(raw)
        return Answer(status, found, content, seconds, stream, not stream or "[DONE]" in events)

    def refusals(self) -> Counter[tuple[str, str]]:
        """How many requests all workers have refused, by client and status."""
        pattern = (
            r'modelyard_gateway_refusals_total\{api_key_alias="(.*)",status_code="(.*)"\} (\S+)'
        )
        found = re.findall(pattern, self.request("GET", "/metrics/").body)
        return Counter({(client, status): int(float(number)) for client, status, number in found})

    def chat(
        self,
        model: str,
        *,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 60,
        **more: Any,
    ) -> Answer:
        """Ask a model one question."""
        body = {"model": model, "messages": [{"role": "user", "content": "Who are you?"}], **more}
        body |= {"stream": True} if stream else {}
        return self.request("POST", "/v1/chat/completions", body, headers, timeout_s=timeout_s)


@functools.cache
def _plugin(kind: str) -> ModuleType:
    """What the role's task for clients is made of."""
    specification = importlib.util.spec_from_file_location(
        f"clients_{kind}", CLONE / f"plugins/{kind}/modelyard_clients.py"
    )
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def secret_names(document: Mapping[str, Any]) -> set[str]:
    """The names of all secrets a document refers to."""
    words = json.dumps(document).split('"')
    return {word.removeprefix("os.environ/") for word in words if word.startswith("os.environ/")}


def _events(raw: bytes) -> Iterator[Any]:
    for line in raw.decode().splitlines():
        if line.startswith("data:"):
            yield _parsed(line.removeprefix("data:").strip().encode())


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")
