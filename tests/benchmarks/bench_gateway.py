"""The gateway's throughput and added latency beside a plain install of the same version. Run by
`make bench`.

All gateways run at the same time, in front of the same stub, and are asked in turns: what else the
machine does meets all of them. No test: a benchmark compares and prints, it does not pass or fail.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CLONE = HERE.parents[1]
sys.path.insert(
    0, str(CLONE / "tests/gateway")
)  # where harness is; so the imports below cannot stand at the top

import harness  # noqa: E402
from harness import Gateway  # noqa: E402

from modelyard.controller.sources import cache_directory  # noqa: E402
from modelyard.names import MASTER_KEY  # noqa: E402

ROUNDS = 3
SECONDS = {8: 4, 1: 2}
"""How long each row is measured in a round, by the number of connections."""
WARM_UP_S = 3
CLIENTS = 100
"""Clients of the gateways with one worker."""
GOAL = 2
"""Times the requests per second of a plain install."""

CLIENT_KEY = "KEY_OF_A_CLIENT_OF_THE_GATEWAY"

DIRECT = "direct"
PLAIN = "plain install"
KEPT = f"{PLAIN}, byte code kept"
OLLAMA = f"{PLAIN}, ollama_chat/"
STOCK = "our environment, stock settings"
OURS = "ours"
ONE = "ours, one worker"
QUIET = f"{ONE}, without metrics"
LLAMA_CPP = f"{ONE}, to llama.cpp"
BARE = f"{ONE}, without the guard"
CLIENT = f"{ONE}, a client's key"

LEGEND = {
    DIRECT: "the client asks the stub, no gateway between",
    PLAIN: (
        "the locked versions of litellm[proxy], prisma and prometheus-client from uv pip install; a"
        " config with the model, its address and a master key; no byte code (uv compiles none, a"
        " service cannot write into a read-only environment); no variable but"
        " LITELLM_LOCAL_MODEL_COST_MAP, which spares it a download at start"
    ),
    KEPT: "the same, and Python keeps byte code in a directory it can write",
    OLLAMA: (
        "the plain install to the stub's Ollama API, with the prefix LiteLLM's documentation"
        " recommends for Ollama"
    ),
    STOCK: (
        "the role's environment (opentelemetry-sdk, httptools, byte code); the plain install's"
        " config and variables"
    ),
    OURS: (
        "as deployed: the role's environment, its unit's command and variables, the emitted"
        " document; two workers (the default), the second on the client's core; metrics, no Redis."
        " Ollama and vLLM are called like this"
    ),
    ONE: "the same with llm_gateway.workers: 1",
    QUIET: "and without Prometheus",
    LLAMA_CPP: "requests to llama-server carry Connection: close",
    BARE: "uvicorn runs LiteLLM's application itself, and that checks the master key",
    CLIENT: (
        f"one of {CLIENTS} clients asks: its key is compared with all, its request checked, its"
        " name written down"
    ),
}

CATALOGUE = """\
llm_providers:
  stub: {{type: openai_compatible, base_url: "{base}", models: [{{name: stub}}]}}
  spare: {{type: openai_compatible, base_url: "{base}", models: [{{name: spare}}]}}
  native: {{type: llama_cpp, base_url: "{base}", models: [{{name: native}}]}}
llm_routing:
  fallbacks: {{stub: {{chain: [spare]}}, native: {{chain: [spare]}}, spare: {{terminal: true}}}}
llm_gateway: {{}}
"""


@dataclass(slots=True)
class Variant(Gateway):
    """A gateway that differs from the deployed one in what is named here."""

    stock: bool = False
    """LiteLLM's own command line and none of the unit's variables."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Variables beside."""
    guard: bool = True
    """LiteLLM's application behind our guard."""

    def command(self) -> tuple[list[str], dict[str, str]]:
        """The command line and the environment variables."""
        command, variables = Gateway.command(self)
        if self.stock:
            config = self.directory / "config/gateway.yaml"
            command = [str(self.environment / "bin/litellm"), "--config", str(config)]
            command += ["--host", "127.0.0.1", "--port", str(self.port)]
            kept = {
                "PATH",
                "HOME",
                "LITELLM_LOCAL_MODEL_COST_MAP",
                *harness.secret_names(self.plan["document"]),
            }
            variables = {name: value for name, value in variables.items() if name in kept}
        if not self.guard:
            command = [
                word.replace("modelyard_gateway.app:app", "litellm.proxy.proxy_server:app")
                for word in command
            ]
        return command, {**variables, **self.extra}


@dataclass(frozen=True, slots=True)
class Target:
    """What one row of the table asks."""

    port: int
    model: str
    processes: Sequence[int] = ()
    """The gateway's."""
    key: str = MASTER_KEY
    """The name of the secret that holds the key."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of wrk saw."""

    rate: float
    """Requests per second."""
    p50_ms: float
    p95_ms: float
    failed: int
    cpu_ms: float
    """CPU time of the gateway per request: other work on the machine hardly changes it."""


def plain_environment() -> Path:
    """Return an environment as a user makes it: the locked versions, without what the role adds.
    Kept in the cache.

    Raises subprocess.CalledProcessError.
    """
    version = harness.VERSIONS["llm_versions"]["litellm"]["version"]
    lock = harness.ROLE / f"files/locks/litellm-{version}.txt"
    interpreter = f"{platform.machine()} {sys.version_info.major}.{sys.version_info.minor}"
    digest = hashlib.sha256(interpreter.encode() + lock.read_bytes()).hexdigest()[:16]
    destination = cache_directory() / "gateway" / f"plain-{version}-{digest}"
    destination.parent.mkdir(parents=True, exist_ok=True)
    mark = destination / ".whole"
    with open(f"{destination}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if mark.exists():
            return destination
        uv = CLONE / ".venv/bin/uv"
        variables = {
            **os.environ,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "UV_COMPILE_BYTECODE": "0",
        }
        python = Path(sys.base_prefix) / "bin/python3"
        subprocess.run(
            [uv, "venv", "-q", "--clear", "--python", python, destination],
            env=variables,
            check=True,
        )
        wanted = [f"litellm[proxy]=={version}", "prisma", "prometheus-client"]
        options: list[str | Path] = [
            "--system-certs",
            "--only-binary",
            ":all:",
            "--constraints",
            lock,
        ]
        command = [
            uv,
            "pip",
            "install",
            "-q",
            "--python",
            destination / "bin/python",
            *options,
            *wanted,
        ]
        subprocess.run(command, env=variables, check=True)
        mark.touch()
    return destination


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in sockets]


def family(process: int) -> Iterator[int]:
    """A process and all below it."""
    yield process
    for task in Path(f"/proc/{process}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from family(int(child))


def pin(processes: Sequence[int], cores: set[int]) -> None:
    """Keep all threads of some processes on some cores."""
    for process in processes:
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), cores)


def cpu_seconds(processes: Sequence[int]) -> float:
    """CPU time some processes have used so far."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def load(target: Target, connections: int, seconds: int, core: int) -> Result:
    """Ask for `seconds` on some connections, each with one request at a time. Raises
    subprocess.CalledProcessError."""
    command = [
        "taskset",
        "-c",
        str(core),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "30s",
    ]
    command += ["-s", str(HERE / "load.lua"), f"http://127.0.0.1:{target.port}", "--", target.model]
    before = cpu_seconds(target.processes)
    printed = subprocess.run(
        [*command, harness.secret(target.key)],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    ).stdout
    found = json.loads(printed.splitlines()[-1])
    cpu_ms = 1e3 * (cpu_seconds(target.processes) - before) / max(found["requests"], 1)
    return Result(
        found["requests"] / found["seconds"],
        found["p50_ms"],
        found["p95_ms"],
        found["failed"],
        cpu_ms,
    )


def by_hand(stub: int) -> dict[str, Any]:
    """A config as one writes it who reads LiteLLM's quick start."""
    base = f"http://127.0.0.1:{stub}"
    return {
        "model_list": [
            {
                "model_name": "stub",
                "litellm_params": {
                    "model": "openai/stub",
                    "api_base": f"{base}/v1",
                    "api_key": "none",
                },
            },
            {
                "model_name": "ollama",
                "litellm_params": {"model": "ollama_chat/stub", "api_base": base},
            },
        ],
        "general_settings": {"master_key": f"os.environ/{MASTER_KEY}"},
    }


def variants(stub: int, directory: Path) -> dict[str, Variant]:
    """The gateways by name. The two workers come first: they are ready when one of them is."""
    ours, plain = harness.environment(), plain_environment()
    plan = harness.plan(harness.compiled(CATALOGUE.format(base=f"http://127.0.0.1:{stub}/v1")))
    emitted = plan["document"]
    settings = {
        name: value for name, value in emitted["litellm_settings"].items() if name != "callbacks"
    }
    general = {
        name: value
        for name, value in emitted["general_settings"].items()
        if not name.startswith("custom_")
    }
    ports = iter(free_ports(7))

    def variant(name: str, environment: Path, document: Mapping[str, Any], **more: Any) -> Variant:
        own = directory / name.replace(" ", "-").replace("/", "")
        own.mkdir()
        return Variant(environment, {**plan, "document": document}, own, next(ports), **more)

    read_only = {"PYTHONDONTWRITEBYTECODE": "1"}
    writable = {"PYTHONPYCACHEPREFIX": str(directory / "pycache")}
    return {
        OURS: variant(OURS, ours, emitted, workers=2),
        PLAIN: variant(PLAIN, plain, by_hand(stub), stock=True, extra=read_only),
        KEPT: variant(KEPT, plain, by_hand(stub), stock=True, extra=writable),
        STOCK: variant(STOCK, ours, by_hand(stub), stock=True),
        QUIET: variant(QUIET, ours, {**emitted, "litellm_settings": settings}),
        ONE: variant(ONE, ours, emitted),
        BARE: variant(BARE, ours, {**emitted, "general_settings": general}, guard=False),
    }


def measure(
    stub: int, stack: ExitStack, directory: Path, cores: Sequence[int]
) -> dict[str, dict[int, list[Result]]]:
    """Start everything and measure in turns: by row and number of connections one result per
    round."""
    gateways = variants(stub, directory)
    gateways[ONE].allow(
        {
            f"c{n}": {"secret": f"{CLIENT_KEY}_{n}", "models": None, "rpm": None}
            for n in range(CLIENTS)
        }
    )
    with ThreadPoolExecutor(len(cores)) as pool:
        list(pool.map(stack.enter_context, gateways.values()))
    targets = {DIRECT: Target(stub, "stub")}
    for name, gateway in gateways.items():
        assert gateway.process is not None
        processes = tuple(family(gateway.process.pid))
        pin(processes, set(cores) if name == OURS else {cores[1]})
        targets[name] = Target(gateway.port, "stub", processes)
    for row, name, model in ((OLLAMA, PLAIN, "ollama"), (LLAMA_CPP, ONE, "native")):
        targets[row] = Target(targets[name].port, model, targets[name].processes)
    targets[CLIENT] = Target(
        targets[ONE].port, "stub", targets[ONE].processes, f"{CLIENT_KEY}_{CLIENTS - 1}"
    )
    for target in targets.values():
        load(target, 8, WARM_UP_S, cores[0])
    results: dict[str, dict[int, list[Result]]] = {
        row: {number: [] for number in SECONDS} for row in LEGEND
    }
    for _ in range(ROUNDS):
        for row, by_connections in results.items():
            for connections, seconds in SECONDS.items():
                by_connections[connections].append(
                    load(targets[row], connections, seconds, cores[0])
                )
    return results


def print_table(results: Mapping[str, Mapping[int, Sequence[Result]]]) -> None:
    """Print medians over the rounds, the least and the most, and the ratios."""

    def middle(row: str, connections: int, what: str) -> float:
        return float(
            statistics.median(getattr(result, what) for result in results[row][connections])
        )

    def added(row: str, connections: int) -> str:
        p50, p95 = (middle(row, connections, what) for what in ("p50_ms", "p95_ms"))
        if row == DIRECT:
            return f"({p50:.2f}/{p95:.2f})"
        return f"{p50 - middle(DIRECT, connections, 'p50_ms'):.1f}/{p95 - middle(DIRECT, connections, 'p95_ms'):.1f}"

    print(f"{'':31} {'8 connections':>47} {'one connection':>16}")
    print(
        f"{'':31} {'req/s':>7} {'min-max':>13} {'CPU ms':>7} {'p50/p95 ms':>17} {'p50/p95 ms':>16}"
        f" {'failed':>7}"
    )
    for row, by_connections in results.items():
        rates = [result.rate for result in by_connections[8]]
        cpu = f"{middle(row, 8, 'cpu_ms'):.1f}" if row != DIRECT else ""
        failed = sum(result.failed for runs in by_connections.values() for result in runs)
        print(
            f"{row:31} {statistics.median(rates):7.0f} {f'{min(rates):.0f}-{max(rates):.0f}':>13}"
            f" {cpu:>7} {added(row, 8):>17} {added(row, 1):>16} {failed:7}"
        )
    print("\nTimes the requests per second, median and spread over the rounds:")
    for row, other in (
        (OURS, PLAIN),
        (ONE, PLAIN),
        (ONE, KEPT),
        (ONE, OLLAMA),
        (ONE, BARE),
        (CLIENT, BARE),
    ):
        times = [
            ours.rate / plain.rate
            for ours, plain in zip(results[row][8], results[other][8], strict=True)
        ]
        by_cpu = middle(other, 8, "cpu_ms") / middle(row, 8, "cpu_ms")
        spread = f"({min(times):.2f}-{max(times):.2f})"
        goal = (
            f"; goal {GOAL}: {'met' if statistics.median(times) >= GOAL else 'MISSED'}"
            if row == OURS
            else ""
        )
        print(
            f"{row:28} : {other:30} {statistics.median(times):5.2f} {spread:>11}; per CPU time"
            f" {by_cpu:.2f}{goal}"
        )


def main() -> None:
    """Print the table."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("the gateway's benchmark needs two cores")
    if not shutil.which("wrk"):
        raise SystemExit("the gateway's benchmark needs wrk: apt-get install wrk")
    print(
        "Throughput of the gateway and the latency it adds to the stub's: a core per worker, one"
        " for client and stub."
    )
    print(
        f"Medians of {ROUNDS} rounds in turns, {SECONDS[8]} s on 8 connections and {SECONDS[1]} s"
        " on one.",
        flush=True,
    )
    (stub_port,) = free_ports(1)
    started = time.monotonic()
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="modelyard-bench-"))
        )
        command = [
            "taskset",
            "-c",
            str(cores[0]),
            sys.executable,
            str(HERE / "stub.py"),
            str(stub_port),
        ]
        stub = stack.enter_context(subprocess.Popen(command))
        stack.callback(stub.kill)
        print_table(measure(stub_port, stack, directory, cores[:2]))
    print()
    for row, what in LEGEND.items():
        print(f"{row}: {what}.")
    print(f"({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
