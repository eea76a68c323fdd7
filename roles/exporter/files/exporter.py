"""What no other exporter provides about a host of Modelyard, for Prometheus.

usage: exporter.py CONFIG [--check]

Its parts are asked at every scrape: the services (live release, last activation, drift, restarts),
the GPUs as nvidia-smi tells of them, their errors in the kernel's log, and the latest probes, which
run in the background: one streamed request per model. A part that fails or hangs is told by
`modelyard_exporter_part_up`; the others answer all the same, in bounded time.

One file, standard library only, because it runs with the host's own Python (3.9 and later).
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

SERVICES = "/opt/modelyard/services"
ACTIVATIONS = "/var/lib/modelyard/activations"
CREDENTIALS = "/etc/modelyard/credentials"
UNITS = "/etc/systemd/system"
PROC = "/proc"

# Together less than the 10 s that Prometheus waits for a scrape.
COMMAND_TIMEOUT_S = 7.0
PART_TIMEOUT_S = 8.0
# A probe may have to wait for other requests, so it gets longer; it holds up no scrape.
PROBE_TIMEOUT_S = 60.0
PROBE_TOKENS = 32
# Fields of a chunk that hold what a model generates, in the words of any engine.
GENERATED = (
    "content",
    "reasoning",
    "reasoning_content",
    "thinking",
    "refusal",
    "tool_calls",
    "function_call",
)

# Said in the journal once a problem is over; a problem is said once, not at every scrape.
WELL = "all is well again"

METRICS = {
    "modelyard_exporter_part_up": (
        "gauge",
        "Whether a part of this exporter could tell all that it should.",
    ),
    "modelyard_release_info": ("gauge", "The live release of a service."),
    "modelyard_release_live_since_seconds": (
        "gauge",
        "Unix time at which the live release became the live one.",
    ),
    "modelyard_activation_last_success": (
        "gauge",
        "Whether the last activation brought the release that it was to bring.",
    ),
    "modelyard_activation_last_timestamp_seconds": (
        "gauge",
        "Unix time at which the last activation ended.",
    ),
    "modelyard_unit_active": ("gauge", "Whether a unit of the live release is active."),
    "modelyard_unit_restarts_total": (
        "counter",
        "How often systemd itself restarted the unit since it was last started.",
    ),
    "modelyard_unit_drift": (
        "gauge",
        (
            "Whether what is there differs from the live release: the installed unit, the running"
            " process or the files."
        ),
    ),
    "modelyard_gpu_info": ("gauge", "A GPU and the version of its driver."),
    "modelyard_gpu_memory_total_bytes": ("gauge", "Memory of the GPU."),
    "modelyard_gpu_memory_used_bytes": ("gauge", "Memory of the GPU that is in use."),
    "modelyard_gpu_utilization_ratio": (
        "gauge",
        "Share of the last moment in which the GPU computed.",
    ),
    "modelyard_gpu_temperature_celsius": ("gauge", "Temperature of the GPU."),
    "modelyard_gpu_power_watts": ("gauge", "Power that the GPU draws."),
    "modelyard_gpu_power_limit_watts": ("gauge", "Power that the GPU may draw."),
    "modelyard_gpu_ecc_errors_total": (
        "counter",
        "Errors of the GPU's memory since its driver was loaded.",
    ),
    "modelyard_gpu_xid_errors_total": (
        "counter",
        "Errors (XID) of the GPU in the kernel's log of this boot.",
    ),
    "modelyard_gpu_last_xid": (
        "gauge",
        "Number of the GPU's last XID error in this boot, 0 if there was none.",
    ),
    "modelyard_probe_success": ("gauge", "Whether the last probe of a model got its whole answer."),
    "modelyard_probe_skipped": (
        "gauge",
        "Whether the last probe was left out because the model is not loaded.",
    ),
    "modelyard_probe_timestamp_seconds": ("gauge", "Unix time at which the last probe began."),
    "modelyard_probe_time_to_first_token_seconds": (
        "gauge",
        "Time from the last probe's request to its first token.",
    ),
    "modelyard_probe_tokens_per_second": (
        "gauge",
        "Tokens per second of the last probe, after the first one.",
    ),
}


class PartError(Exception):
    """A part cannot tell all that it should; the text goes to the journal."""


def escape(text: str) -> str:
    """Escape a label's value for the text format."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class Samples:
    """Samples by metric, in the text format of Prometheus."""

    def __init__(self) -> None:
        self.lines: dict[str, list[str]] = {name: [] for name in METRICS}

    def add(self, name: str, value: float, /, **labels: str) -> None:
        """Add a sample. A label without a value is the same as none."""
        shown = ",".join(f'{key}="{escape(text)}"' for key, text in labels.items() if text)
        self.lines[name].append(
            f"{name}{{{shown}}} {float(value)!r}" if shown else f"{name} {float(value)!r}"
        )

    def extend(self, other: Samples) -> None:
        """Take over the samples of another one."""
        for name, lines in other.lines.items():
            self.lines[name] += lines

    def text(self) -> str:
        """Return all of them, each metric in one block."""
        blocks = []
        for name, lines in self.lines.items():
            if lines:
                kind, description = METRICS[name]
                blocks += [f"# HELP {name} {description}", f"# TYPE {name} {kind}", *lines]
        return "\n".join([*blocks, ""])


def run(*argv: str) -> tuple[int, str]:
    """Run a program; return its exit status and what it printed, both streams."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=COMMAND_TIMEOUT_S,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise PartError(f"{argv[0]} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise PartError(f"{argv[0]} did not answer within {COMMAND_TIMEOUT_S:g} s") from error
    return done.returncode, done.stdout


def read(path: str) -> str | None:
    """Return a file's text, or None where there is no such file."""
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


# Services
# ------------------------------------------------------------------------------------------


class Release:
    """The live release of a service, as its manifest describes it
    (plugins/module_utils/modelyard_services.py).
    """

    def __init__(self, service: str) -> None:
        root = os.path.join(SERVICES, service)
        self.service = service
        self.id = os.path.basename(os.readlink(os.path.join(root, "current")))
        self.path = os.path.join(root, "releases", self.id)
        self.since = os.lstat(os.path.join(root, "current")).st_mtime
        with open(os.path.join(self.path, "manifest.json"), encoding="utf-8") as handle:
            self.manifest: dict[str, Any] = json.load(handle)
        self.strategy = self.manifest["activation"].get("strategy", "restart")

    @property
    def version(self) -> str:
        """Version of what it runs, empty where the package manager decides about that."""
        plan = self.manifest.get("plan") or {}
        return str(plan.get("version") or plan.get("build", {}).get("version") or "")

    def fill(self, text: str, slot: str = "") -> str:
        """Replace the placeholders of a file or a unit."""
        values = {
            "RELEASE": self.path,
            "CREDENTIALS": os.path.join(
                CREDENTIALS, self.service, self.manifest["generation"] or "none"
            ),
        }
        if slot:
            values.update(SLOT=slot, PORT=str(self.manifest["activation"]["slots"][slot]))
        for name, value in values.items():
            # Put together here, because this file is a release's, too, and would be filled in
            # itself.
            text = text.replace("@" + name + "@", value)
        return text

    def units(self) -> dict[str, str]:
        """Return {unit: content}.

        Of a service with slots those that are installed, all of them if none is.
        """
        if self.strategy != "slots":
            return {name: self.fill(content) for name, content in self.manifest["units"].items()}
        found = {
            name.replace("@.", f"@{slot}."): self.fill(content, slot)
            for name, content in self.manifest["units"].items()
            for slot in self.manifest["activation"]["slots"]
        }
        installed = {
            name: content
            for name, content in found.items()
            if os.path.exists(os.path.join(UNITS, name))
        }
        return installed or found

    def edited(self) -> bool:
        """Say whether a file of the release no longer holds what it was written with."""
        return any(
            read(os.path.join(self.path, path)) != self.fill(content)
            for path, content in self.manifest["files"].items()
        )


def unit_states(units: list[str]) -> dict[str, dict[str, str]]:
    """Return the properties of all units, by name, with one call of systemctl."""
    if not units:
        return {}
    properties = "Id,ActiveState,UnitFileState,MainPID,NRestarts"
    status, shown = run("systemctl", "show", f"--property={properties}", "--", *units)
    if status:
        raise PartError(f"systemctl show: {shown.strip()}")
    blocks = [
        dict(line.split("=", 1) for line in block.splitlines())
        for block in shown.strip().split("\n\n")
    ]
    return {block["Id"]: block for block in blocks}


def process_release(pid: str) -> str | None:
    """Return the release that a process was started from, empty if it names none, None if it is
    gone.
    """
    try:
        with open(os.path.join(PROC, pid, "environ"), encoding="utf-8", errors="replace") as handle:
            variables = handle.read().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [one.partition("=")[2] for one in variables if one.startswith("MODELYARD_RELEASE=")]
    return os.path.basename(found[0]) if found else ""


def collect_services(samples: Samples) -> None:
    """Tell of every service that is live.

    What is wrong with one does not keep the others from being told.
    """
    problems = []
    releases = []
    for service in sorted(os.listdir(SERVICES)):
        live, staged = (
            os.path.lexists(os.path.join(SERVICES, service, link)) for link in ("current", "staged")
        )
        try:
            if live or staged:  # else it left the plan
                collect_activation(samples, service)
            if live:
                releases.append(Release(service))
        except (OSError, ValueError, LookupError, TypeError) as error:
            problems.append(f"{service}: {error!r}")
    states = unit_states([unit for release in releases for unit in release.units()])
    for release in releases:
        try:
            collect_release(samples, release, states)
        except (OSError, ValueError, LookupError, TypeError) as error:
            problems.append(f"{release.service}: {error!r}")
    if problems:
        raise PartError("; ".join(problems))


def collect_activation(samples: Samples, service: str) -> None:
    """Tell how the last activation ended. While one is under way there is no report."""
    path = os.path.join(ACTIVATIONS, f"{service}.json")
    report = read(path)
    if report is not None:
        ended = os.stat(path).st_mtime
        samples.add(
            "modelyard_activation_last_success",
            not json.loads(report).get("failed"),
            service=service,
        )
        samples.add("modelyard_activation_last_timestamp_seconds", ended, service=service)


def collect_release(samples: Samples, release: Release, states: dict[str, dict[str, str]]) -> None:
    """Tell of a live release, and how what is there differs from it."""
    name = {"service": release.service}
    samples.add("modelyard_release_info", 1, **name, release=release.id, version=release.version)
    samples.add("modelyard_release_live_since_seconds", release.since, **name)
    units = release.units()
    samples.add(
        "modelyard_unit_drift", release.edited(), **name, unit=next(iter(units)), what="files"
    )
    for unit, content in units.items():
        state = states[unit]
        active = state["ActiveState"] in ("active", "reloading")
        samples.add("modelyard_unit_active", active, **name, unit=unit)
        samples.add(
            "modelyard_unit_restarts_total", int(state["NRestarts"] or 0), **name, unit=unit
        )
        differs = read(os.path.join(UNITS, unit)) != content or state["UnitFileState"] != "enabled"
        samples.add("modelyard_unit_drift", differs, **name, unit=unit, what="unit")
        # A reload keeps the environment of the first start, and a unit without a process has none.
        if active and release.strategy != "reload" and state["MainPID"] != "0":
            running = process_release(state["MainPID"])
            if running is not None:
                samples.add(
                    "modelyard_unit_drift", running != release.id, **name, unit=unit, what="process"
                )


# GPUs
# ------------------------------------------------------------------------------------------


class Gpus:
    """The NVIDIA GPUs: what nvidia-smi says now, and what the kernel's log has said of them since
    the boot.

    These are two parts, but a line of the log names a GPU only by its place on the PCI bus.
    """

    FIELDS = (
        "index",
        "uuid",
        "name",
        "pci.bus_id",
        "driver_version",
        "memory.total",
        "memory.used",
        "utilization.gpu",
        "temperature.gpu",
        "power.draw",
        "enforced.power.limit",
        "ecc.errors.corrected.volatile.total",
        "ecc.errors.uncorrected.volatile.total",
    )
    # Metric, factor and labels of the fields behind the driver's version.
    VALUES: tuple[tuple[str, float, dict[str, str]], ...] = (
        ("modelyard_gpu_memory_total_bytes", 2**20, {}),
        ("modelyard_gpu_memory_used_bytes", 2**20, {}),
        ("modelyard_gpu_utilization_ratio", 0.01, {}),
        ("modelyard_gpu_temperature_celsius", 1, {}),
        ("modelyard_gpu_power_watts", 1, {}),
        ("modelyard_gpu_power_limit_watts", 1, {}),
        ("modelyard_gpu_ecc_errors_total", 1, {"type": "corrected"}),
        ("modelyard_gpu_ecc_errors_total", 1, {"type": "uncorrected"}),
    )
    XID = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)")

    def __init__(self) -> None:
        self.known: dict[
            str, dict[str, str]
        ] = {}  # labels by that place, also of a GPU that is gone by now
        self.xids: dict[str, list[int]] = {}
        self.cursor = ""

    def collect(self, samples: Samples) -> None:
        """Tell what nvidia-smi says. Its complaints stand between the lines of the GPUs."""
        status, said = run(
            "nvidia-smi", f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits"
        )
        complaints = []
        for line in said.splitlines():
            cells = [cell.strip() for cell in line.split(", ")]
            if len(cells) != len(self.FIELDS) or not cells[0].isdigit():
                complaints.append(line.strip())
                continue
            index, uuid, name, place, driver = cells[:5]
            labels = {"index": index, "uuid": uuid, "name": name}
            self.known[bus_place(place)] = labels
            samples.add("modelyard_gpu_info", 1, **labels, driver_version=driver)
            for column, (metric, factor, more) in enumerate(self.VALUES, start=5):
                with contextlib.suppress(
                    ValueError
                ):  # `[N/A]` and its like: this GPU does not tell
                    samples.add(metric, float(cells[column]) * factor, **labels, **more)
        if status:
            raise PartError(
                f"nvidia-smi: {' '.join(filter(None, complaints))} (exit status {status})"
            )

    def collect_xids(self, samples: Samples) -> None:
        """Tell the errors in the kernel's log, also while nvidia-smi hangs in the driver."""
        self.read_log()
        for place in {**self.known, **self.xids}:
            labels = self.known.get(place) or {"name": place}
            errors = self.xids.get(place, [])
            samples.add("modelyard_gpu_xid_errors_total", len(errors), **labels)
            samples.add("modelyard_gpu_last_xid", errors[-1] if errors else 0, **labels)

    def read_log(self) -> None:
        """Read what the kernel has written since the last call."""
        since = [f"--after-cursor={self.cursor}"] if self.cursor else []
        options = ["--dmesg", "--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE"]
        status, said = run("journalctl", *options, *since)
        if status:
            raise PartError(f"journalctl: {said.strip()[:200]}")
        for line in said.splitlines():
            try:
                entry = json.loads(line)
                self.cursor = entry["__CURSOR"]
                found = self.XID.search(str(entry.get("MESSAGE")))
            except (ValueError, LookupError, TypeError):
                continue
            if found:
                self.xids.setdefault(bus_place(found[1]), []).append(int(found[2]))


def bus_place(text: str) -> str:
    """Return a place on the PCI bus as the kernel writes it: `00000000:65:00.0` is `0000:65:00`."""
    domain, _, rest = text.lower().partition(".")[0].partition(":")
    return f"{domain[-4:]:0>4}:{rest}"


# Probes
# ------------------------------------------------------------------------------------------


class Prober:
    """Asks every model from time to time, one after the other, and remembers what the last answer
    was like.
    """

    def __init__(self, probes: list[dict[str, Any]], interval_s: float) -> None:
        self.probes = probes
        self.interval_s = interval_s
        self.results: list[Samples] = [Samples() for _ in probes]
        self.told: dict[str, str] = {}
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self) -> None:
        """Go round for ever."""
        while True:
            for number, probe in enumerate(self.probes):
                self.results[number] = self.once(probe)
            time.sleep(self.interval_s)

    def collect(self, samples: Samples) -> None:
        """Tell the last results."""
        for result in list(self.results):
            samples.extend(result)
        if not self.thread.is_alive():
            raise PartError("the thread that probes has ended")

    def once(self, probe: dict[str, Any]) -> Samples:
        """Probe one model; never raises."""
        result = Samples()
        labels = {"service": str(probe["service"]), "model": str(probe["model"])}
        result.add("modelyard_probe_timestamp_seconds", time.time(), **labels)
        try:
            loaded = is_loaded(probe)
            result.add("modelyard_probe_skipped", not loaded, **labels)
            if loaded:
                first, speed = ask(probe)
                result.add("modelyard_probe_success", 1, **labels)
                if first is not None:
                    result.add("modelyard_probe_time_to_first_token_seconds", first, **labels)
                if speed is not None:
                    result.add("modelyard_probe_tokens_per_second", speed, **labels)
        except Exception as error:  # whatever a server answers, the next model has its turn
            result.add("modelyard_probe_success", 0, **labels)
            problem = str(error) if isinstance(error, PartError) else repr(error)
        else:
            problem = WELL
        who = f"probe of {labels['model']} ({labels['service']})"
        if problem != self.told.get(who, WELL):
            log(f"{who}: {problem}")
        self.told[who] = problem
        return result


def send(
    url: str, body: dict[str, Any] | None, key: str
) -> tuple[http.client.HTTPConnection, Iterator[bytes]]:
    """Send a request; return its connection, to be closed, and the lines of an answer with status
    200.
    """
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=PROBE_TIMEOUT_S
    )
    headers = {"Content-Type": "application/json", "User-Agent": "modelyard-exporter"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        payload = None if body is None else json.dumps(body).encode()
        connection.request("GET" if body is None else "POST", parts.path or "/", payload, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise PartError(
                f"answered {response.status}: {response.read(200).decode('utf-8', 'replace')}"
            )
        return connection, iter(response)
    except BaseException:
        connection.close()
        raise


def is_loaded(probe: dict[str, Any]) -> bool:
    """Say whether a probe would not make Ollama load a model, which is for its users to decide."""
    if not probe.get("loaded_url"):
        return True
    connection, lines = send(probe["loaded_url"], None, "")
    try:
        models = json.loads(b"".join(lines))["models"]
    finally:
        connection.close()
    wanted = (
        probe["model"] if ":" in probe["model"].rpartition("/")[2] else f"{probe['model']}:latest"
    )
    return any(wanted in (model.get("name"), model.get("model")) for model in models)


def ask(probe: dict[str, Any]) -> tuple[float | None, float | None]:
    """Stream one answer; return the time to its first token and the tokens per second after it,
    where there are any.
    """
    question = {
        "model": probe["model"],
        # Never asked before: what the engine remembers of a question would make it look faster than
        # it is.
        "messages": [{"role": "user", "content": f"Tell me about the number {time.time_ns()}."}],
        "max_tokens": PROBE_TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,  # llama.cpp and vLLM: as many tokens each time; the others do not mind
    }
    key = ""
    if probe.get("credential"):
        with open(
            os.path.join(os.environ["CREDENTIALS_DIRECTORY"], probe["credential"]), encoding="utf-8"
        ) as handle:
            key = handle.read().strip()
    started = time.monotonic()
    connection, lines = send(probe["url"], question, key)
    try:
        first, last, tokens = measure(lines, started)
    finally:
        connection.close()
    if first is None or last is None:
        return None, None
    return first - started, (tokens - 1) / (last - first) if tokens > 1 and last > first else None


def measure(lines: Iterator[bytes], started: float) -> tuple[float | None, float | None, int]:
    """Read a stream to its end; return when its first and its last token came, and how many there
    were.
    """
    first = last = None
    pieces = 0
    told = None
    for line in lines:
        now = time.monotonic()
        if now - started > PROBE_TIMEOUT_S:
            raise PartError(f"the answer did not end within {PROBE_TIMEOUT_S:g} s")
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return first, last, told or pieces
        event = json.loads(data)
        if "error" in event:
            raise PartError(f"the stream says: {str(event['error'])[:200]}")
        told = (event.get("usage") or {}).get("completion_tokens") or told
        choice = (event.get("choices") or [{}])[0]
        delta = choice.get("delta") or {}
        if any(delta.get(field) for field in GENERATED):
            first, last, pieces = first or now, now, pieces + 1
    raise PartError("the stream ended without [DONE]")


# The exporter
# ------------------------------------------------------------------------------------------


def log(message: str) -> None:
    """Write a line to the journal."""
    print(message, file=sys.stderr, flush=True)


class Part:
    """One part, asked in a thread of its own: what hangs can be waited for no longer, but it cannot
    be stopped.

    As long as it hangs it is not asked again, so nothing piles up.
    """

    def __init__(self, name: str, collect: Callable[[Samples], None]) -> None:
        self.name = name
        self.collect = collect
        self.thread: threading.Thread | None = None
        self.samples = Samples()
        self.problem: str | None = None
        self.told: str | None = None
        self.hangs = False

    def start(self) -> None:
        """Begin to collect."""
        self.hangs = self.thread is not None and self.thread.is_alive()
        if not self.hangs:
            self.samples = Samples()
            self.thread = threading.Thread(target=self.work, args=(self.samples,), daemon=True)
            self.thread.start()

    def work(self, samples: Samples) -> None:
        """Collect, and note what went wrong."""
        problem = None
        try:
            self.collect(samples)
        except PartError as error:
            problem = str(error)
        except Exception as error:
            problem = repr(error)
        self.problem = problem

    def finish(self, deadline: float, samples: Samples) -> None:
        """Take over what was collected until the deadline."""
        if self.thread is not None and not self.hangs:
            self.thread.join(max(0.0, deadline - time.monotonic()))
            self.hangs = self.thread.is_alive()
        problem = "it hangs" if self.hangs else self.problem
        if not self.hangs:
            samples.extend(self.samples)
        samples.add("modelyard_exporter_part_up", problem is None, part=self.name)
        if problem != self.told:
            log(f"{self.name}: {problem or WELL}")
            self.told = problem


class Exporter:
    """All parts of a configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.lock = threading.Lock()
        self.services = Part("services", collect_services)
        gpus = Gpus()
        self.gpus = [Part("gpus", gpus.collect), Part("xids", gpus.collect_xids)]
        self.probes: Part | None = None
        if config["probes"] and config["probe_interval_s"]:
            prober = Prober(config["probes"], float(config["probe_interval_s"]))
            prober.thread.start()
            self.probes = Part("probes", prober.collect)

    def scrape(self) -> str:
        """Return all metrics."""
        with self.lock:
            parts = [self.services, *(self.gpus if shutil.which("nvidia-smi") else [])]
            parts += [self.probes] if self.probes else []
            deadline = time.monotonic() + PART_TIMEOUT_S
            for part in parts:
                part.start()
            samples = Samples()
            for part in parts:
                part.finish(deadline, samples)
            return samples.text()


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    timeout = 10.0  # for a client that sends nothing
    server: Server

    def do_GET(self) -> None:
        """Answer `/metrics`, and nothing else."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404)
            return
        body = self.server.exporter.scrape().encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a line per scrape would be the larger part of the journal."""


class Server(http.server.ThreadingHTTPServer):
    """Listens on an address."""

    def __init__(self, address: str, port: int, exporter: Exporter) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.exporter = exporter
        super().__init__((address, port), Handler)

    def server_bind(self) -> None:
        """Listen without asking the name service who this host is, which may take half a minute."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line that a client went away, or what else it was."""
        log(f"a request failed: {sys.exc_info()[1]!r}")


def main() -> None:
    """Serve, or with --check only read the configuration."""
    with open(sys.argv[1], encoding="utf-8") as handle:
        config = json.load(handle)
    for probe in config["probes"]:
        if urllib.parse.urlsplit(probe["url"]).scheme != "http":
            sys.exit(
                f"the probe of {probe['model']} has no address that begins with http://:"
                f" {probe['url']}"
            )
    if "--check" not in sys.argv[2:]:
        Server(config["listen"], int(config["port"]), Exporter(config)).serve_forever()


if __name__ == "__main__":
    main()
