"""Checks of running services, run on the host they are about: activation, handlers and smoke share
them.

A check is a dictionary compiled by the core (docs/plan.md, "Checks"). Standard library only,
because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.modelyard_host import ServiceError, run
from ansible.module_utils.modelyard_services import CREDENTIALS
from ansible.module_utils.modelyard_units import unit_state

GATEWAY_OPTIONS = {
    "url": {"type": "str", "required": True},
    "bearer": {"type": "str", "default": "litellm/LITELLM_MASTER_KEY", "no_log": False},
    "model": {"type": "str", "required": True},
}
"""Options of modules that ask the gateway; the documentation fragment modelyard_gateway describes
them."""
DEFAULT_TIMEOUT_S = 5.0


class CheckError(Exception):
    """A check did not pass; the text says what was seen instead."""


class FinalCheckError(CheckError):
    """A server that is up does not do what was planned, and waiting does not change that."""


class NotTriedError(CheckError):
    """What a check is about could not be tried, and that is no fault of ours."""


def read_credential(reference: str, generations: dict[str, str] | None = None) -> str:
    """Return the secret that `SERVICE/NAME` refers to.

    `generations` maps a service to the generation to read instead of its live one: a candidate is
    checked with the secrets it was started with. Raises CheckError.
    """
    service, _, name = reference.rpartition("/")
    generation = (generations or {}).get(service, "current")
    path = os.path.join(CREDENTIALS, service, generation, name)
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read().strip()
    except OSError as error:
        raise CheckError(f"credential {reference} cannot be read: {error.strerror}") from error


def run_check(check: dict[str, Any], generations: dict[str, str] | None = None) -> dict[str, Any]:
    """Run one check; never raises.

    Returns {name, service, kind, hint, status: ok|failed|skipped, detail, seconds, final}; `final`:
    waiting is no use.
    """
    result = {key: check.get(key, "") for key in ("name", "service", "kind", "hint")} | {
        "final": False
    }
    if check.get("skip"):
        return {**result, "status": "skipped", "detail": check["skip"], "seconds": 0.0}
    started = time.monotonic()
    try:
        detail = _KINDS[check["kind"]](check, generations)
        status = "ok"
    except NotTriedError as error:
        status, detail = "skipped", str(error)
    except (CheckError, ServiceError) as error:
        status, detail = "failed", str(error)
        result["final"] = isinstance(error, FinalCheckError)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        status, detail = "failed", describe(error)
    return {
        **result,
        "status": status,
        "detail": detail,
        "seconds": round(time.monotonic() - started, 3),
    }


def run_checks(
    checks: list[dict[str, Any]], generations: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run every check, also after failures: one run shows all that is wrong."""
    return [run_check(check, generations) for check in checks]


def describe(error: Exception) -> str:
    """Say in a few words what went wrong, without a traceback."""
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


def table(results: list[dict[str, Any]]) -> list[str]:
    """Return the lines of a table of results, with the hint under everything that failed."""
    if not results:
        return ["no check was run"]
    width = max(len(result["service"]) for result in results)
    name_width = max(len(result["name"]) for result in results)
    lines = []
    for result in results:
        mark = {"ok": "ok     ", "failed": "FAILED ", "skipped": "skipped"}[result["status"]]
        lines.append(
            f"{mark}  {result['service']:<{width}}  {result['name']:<{name_width}}  "
            f"{result['seconds']:6.2f} s  {result['detail']}".rstrip()
        )
        if result["status"] == "failed" and result["hint"]:
            lines.append(f"{'':7}  {'':{width}}  try: {result['hint']}")
    counts = {
        status: sum(r["status"] == status for r in results)
        for status in ("ok", "failed", "skipped")
    }
    lines.append(f"{counts['ok']} ok, {counts['failed']} failed, {counts['skipped']} skipped")
    return lines


@contextlib.contextmanager
def sent(
    check: dict[str, Any], generations: dict[str, str] | None, body: dict[str, Any] | None = None
) -> Iterator[http.client.HTTPResponse]:
    """Send the request that a check describes, and give the response while its connection is open.

    Raises OSError, HTTPException or CheckError.
    """
    url = urllib.parse.urlsplit(check["url"])
    timeout = float(check.get("timeout_s", DEFAULT_TIMEOUT_S))
    headers = {"Content-Type": "application/json", "User-Agent": "modelyard-check"}
    if check.get("bearer"):
        headers["Authorization"] = f"Bearer {read_credential(check['bearer'], generations)}"
    if check.get("x_api_key"):
        headers["x-api-key"] = read_credential(check["x_api_key"], generations)
        headers["anthropic-version"] = "2023-06-01"
    connection_class = (
        http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    )
    connection = connection_class(url.hostname or "", url.port, timeout=timeout)
    try:
        payload = json.dumps(body).encode() if body is not None else None
        method = check.get("method") or ("POST" if body is not None else "GET")
        target = url.path + (f"?{url.query}" if url.query else "")
        connection.request(method, target or "/", payload, headers)
        yield connection.getresponse()
    finally:
        connection.close()


def request(
    check: dict[str, Any], generations: dict[str, str] | None, body: dict[str, Any] | None = None
) -> tuple[int, bytes]:
    """Send the request that a check describes; returns the status and the body.

    Raises as `sent`.
    """
    with sent(check, generations, body) as response:
        return response.status, response.read()


def speed(check: dict[str, Any], tokens: int) -> dict[str, Any]:
    """Stream one answer of the model of a `chat` check; never raises.

    Returns {model, first_token_s, tokens_per_s (after the first one), problem}; what is not known
    is None.
    """
    found = {"model": check["model"], "first_token_s": None, "tokens_per_s": None, "problem": None}
    question = {
        "model": check["model"],
        # Never asked before: what an engine remembers of a question would make it look faster than
        # it is.
        "messages": [{"role": "user", "content": f"Tell me about the number {time.time_ns()}."}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,  # llama.cpp and vLLM: as many tokens each time; the others do not mind
    }
    started = time.monotonic()
    arrived = []
    try:
        with sent(check, None, question) as response:
            if response.status != 200:
                raise CheckError(f"answered {response.status}: {_excerpt(response.read(200))}")
            for line in response:
                text = line.decode("utf-8", "replace")
                if (
                    text.startswith("data:")
                    and text[5:].strip() != "[DONE]"
                    and _has_token(json.loads(text[5:]))
                ):
                    arrived.append(time.monotonic())
    except (CheckError, ServiceError) as error:
        found["problem"] = str(error)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        found["problem"] = describe(error)
    if arrived:
        found["first_token_s"] = round(arrived[0] - started, 3)
    elif not found["problem"]:
        found["problem"] = "the stream contained no token"
    if len(arrived) > 1:
        found["tokens_per_s"] = round((len(arrived) - 1) / (arrived[-1] - arrived[0]), 1)
    return found


# Where engines put what a model generates: text; what it thinks before that (llama.cpp and Ollama
# say `reasoning_content` or `reasoning`, by version, vLLM `reasoning`); a refusal; calls of tools.
# The exporter, one file of its own, has the same list.
_GENERATED = (
    "content",
    "reasoning",
    "reasoning_content",
    "thinking",
    "refusal",
    "tool_calls",
    "function_call",
)


def _has_token(event: dict[str, Any]) -> bool:
    deltas = [choice.get("delta") or {} for choice in event.get("choices") or []]
    return any(delta.get(field) for delta in deltas for field in _GENERATED)


def said(message: dict[str, Any]) -> str:
    """Return the text of a whole answer, or what the model thought, if it came no further."""
    texts = (message.get(field) for field in _GENERATED)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _excerpt(body: bytes) -> str:
    return " ".join(body.decode("utf-8", "replace").split())[:200]


def _check_unit(check: dict[str, Any], _generations: dict[str, str] | None) -> str:
    states = {}
    for unit in check["units"]:
        properties = unit_state(unit)
        states[unit] = properties.get("ActiveState", "unknown")
        if properties.get("LoadState") == "not-found":
            states[unit] = "not installed"
    active = [unit for unit, state in states.items() if state == "active"]
    if not active or "failed" in states.values():
        raise CheckError(", ".join(f"{unit} is {state}" for unit, state in states.items()))
    return f"{active[0]} is active"


def _check_http(check: dict[str, Any], generations: dict[str, str] | None) -> str:
    status, body = request(check, generations, check.get("body"))
    if status not in check.get("expect_status", [200]):
        expected = " or ".join(str(code) for code in check.get("expect_status", [200]))
        raise CheckError(f"answered {status}, expected {expected}: {_excerpt(body)}")
    return f"answered {status}"


def _check_models(check: dict[str, Any], generations: dict[str, str] | None) -> str:
    status, body = request(check, generations)
    if status != 200:
        raise CheckError(f"answered {status}: {_excerpt(body)}")
    served = {entry["id"] for entry in json.loads(body)["data"]}
    wanted = set(check["names"])
    missing, more = wanted - served, served - wanted
    if missing or (more and not check.get("others")):
        parts = []
        if missing:
            parts.append(f"missing: {', '.join(sorted(missing))}")
        if more and not check.get("others"):
            parts.append(f"not in the plan: {', '.join(sorted(more))}")
        raise FinalCheckError("; ".join(parts))
    count = f"{len(wanted)} model{'' if len(wanted) == 1 else 's'}"
    return f"{count} as compiled, and {len(more)} more" if more else f"{count}, exactly as compiled"


def _check_chat(check: dict[str, Any], generations: dict[str, str] | None) -> str:
    stream = bool(check.get("stream"))
    question = {
        "model": check["model"],
        # Never asked before: an answer from the gateway's cache would say nothing about the engine.
        "messages": [{"role": "user", "content": f"Hello at {time.time_ns()}"}],
        "max_tokens": 1,
        "stream": stream,
    }
    status, body = request(check, generations, question)
    if status != 200:
        raise CheckError(f"{check['model']} answered {status}: {_excerpt(body)}")
    if not stream:
        if not json.loads(body).get("choices"):
            raise CheckError(f"{check['model']} answered without choices: {_excerpt(body)}")
        return f"{check['model']} returned a token"
    events = [
        line[5:].strip()
        for line in body.decode("utf-8", "replace").splitlines()
        if line.startswith("data:")
    ]
    if not events or events[-1] != "[DONE]":
        raise CheckError(
            f"the stream of {check['model']} did not end in [DONE]: {_excerpt(body[-200:])}"
        )
    return f"{check['model']} streamed {len(events) - 1} events and [DONE]"


def _check_embedding(check: dict[str, Any], generations: dict[str, str] | None) -> str:
    question = {"model": check["model"], "input": f"Hello at {time.time_ns()}"}
    status, body = request(check, generations, question)
    if status in (400, 501):
        # It was started for something else, and will not change its mind.
        raise FinalCheckError(f"{check['model']} answered {status}: {_excerpt(body)}")
    if status != 200:
        raise CheckError(f"{check['model']} answered {status}: {_excerpt(body)}")
    vectors = [entry.get("embedding") for entry in json.loads(body).get("data") or []]
    if len(vectors) != 1 or not vectors[0]:
        raise CheckError(f"{check['model']} answered without a vector: {_excerpt(body)}")
    return f"{check['model']} returned a vector of {len(vectors[0])} numbers"


def _check_key(check: dict[str, Any], generations: dict[str, str] | None) -> str:
    """Names the secret, never its value; so without what the provider says, which may repeat a part
    of it.
    """
    name = (check.get("bearer") or check["x_api_key"]).rpartition("/")[2]
    try:
        status, _body = request(check, generations)
    except (OSError, http.client.HTTPException) as error:
        raise NotTriedError(f"{name} could not be checked: {describe(error)}") from error
    if status in (401, 403):
        raise FinalCheckError(f"refuses the key {name}: answered {status}")
    if status != 200:
        raise NotTriedError(f"{name} could not be checked: answered {status}")
    return f"answered 200 to the key {name}"


class _Redis:
    """The few lines of the Redis protocol (RESP2) that a round trip needs."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._socket = socket.create_connection((host, port), timeout=timeout)
        self._file = self._socket.makefile("rb")

    def call(self, *words: str) -> bytes | None:
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            raw = word.encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(raw), raw))
        self._socket.sendall(b"".join(parts))
        line = self._file.readline().rstrip(b"\r\n")
        if line[:1] == b"-":
            # The server's error never repeats the password, only the command's name.
            raise CheckError(f"{words[0]}: {line[1:].decode('utf-8', 'replace')}")
        if line[:1] == b"$":
            length = int(line[1:])
            return None if length < 0 else self._file.read(length + 2)[:-2]
        if not line:
            raise CheckError(f"{words[0]}: the connection was closed")
        return line[1:]

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def _check_redis(check: dict[str, Any], generations: dict[str, str] | None) -> str:
    client = _Redis(
        check["host"], int(check["port"]), float(check.get("timeout_s", DEFAULT_TIMEOUT_S))
    )
    try:
        client.call("AUTH", check["username"], read_credential(check["password"], generations))
        client.call("PING")
        key = f"{check.get('prefix', '')}modelyard-check-{os.getpid()}"
        client.call("SET", key, "1", "EX", "10")
        if client.call("GET", key) != b"1":
            raise CheckError("a value just written could not be read back")
        client.call("DEL", key)
    finally:
        client.close()
    return "wrote and read a key"


# What llama.cpp says of a model that it loads; of these only the failure, unless its verbosity is
# at least 4.
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers to GPU")
_BUFFER = re.compile(r"CUDA\d+ model buffer size = +([\d.]+) MiB")
_NO_CUDA = re.compile(r"failed to initialize CUDA: .*")
# A model is loaded at the start, and a journal can be long.
_FIRST_LINES = 5000


def _check_gpu(check: dict[str, Any], _generations: dict[str, str] | None) -> str:
    unit = check["unit"]
    journal = _first_lines(unit)
    held, others = _gpu_memory(_processes(unit))
    layers = max(
        ((int(some), int(all_)) for some, all_ in _OFFLOADED.findall(journal)), default=None
    )
    on_gpu = f"{layers[0]} of {layers[1]} layers are on the GPU" if layers else ""
    if layers and (layers[0] == 0 or (check.get("layers") == "all" and layers[0] < layers[1])):
        raise FinalCheckError(on_gpu)
    if held is not None:
        return ", ".join(
            filter(None, [f"holds {held} MiB of GPU memory" if held else "uses a GPU", on_gpu])
        )
    buffers = [float(size) for size in _BUFFER.findall(journal)]
    if buffers and not others:  # in a container nvidia-smi sees no process
        return f"holds {sum(buffers):.0f} MiB of GPU memory, as it reports itself, {on_gpu}"
    found = f"no process of {unit} holds GPU memory: it runs on the CPU"
    reason = _NO_CUDA.search(journal)
    if reason:
        found += f" ({reason[0]})"
    elif not others:
        found += (
            "; nvidia-smi lists no process at all. In a container it cannot: set the model's "
            "option log-verbosity: 4, and the server logs its GPU memory"
        )
    raise FinalCheckError(found)


def _first_lines(unit: str) -> str:
    """Return what the unit wrote to the journal since its latest start, as far as that matters."""
    invocation = run(
        ["systemctl", "show", "--property=InvocationID", "--value", unit]
    ).stdout.strip()
    if not invocation:
        return ""
    shown = 'journalctl "_SYSTEMD_INVOCATION_ID=$0" --no-pager --output=cat | head -n "$1"'
    return run(["/bin/sh", "-c", shown, invocation, str(_FIRST_LINES)]).stdout


def _processes(unit: str) -> set[int]:
    """Return the ids of all processes of a unit, the children of its first one too."""
    group = run(["systemctl", "show", "--property=ControlGroup", "--value", unit]).stdout.strip()
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cgroup", encoding="utf-8") as handle:
                groups = [line.rstrip("\n").split(":", 2)[2] for line in handle]
        except OSError:
            continue  # it ended meanwhile
        if group and any(one == group or one.startswith(f"{group}/") for one in groups):
            found.add(int(pid))
    return found


def _gpu_memory(processes: set[int]) -> tuple[int | None, int]:
    """Return the MiB of GPU memory that these processes hold (None: no GPU knows them), and how
    many others there are.

    Where nvidia-smi knows a process but not its memory, that counts as 0.
    """
    try:
        asked = run(
            [
                "nvidia-smi",
                "--query-compute-apps=pid,used_gpu_memory",
                "--format=csv,noheader,nounits",
            ]
        )
    except ServiceError as error:
        raise FinalCheckError(str(error)) from error
    if asked.returncode != 0:
        said = (asked.stdout + asked.stderr).strip().splitlines()
        raise FinalCheckError(
            f"nvidia-smi: {said[-1] if said else f'exit status {asked.returncode}'}"
        )
    held, others = None, 0
    for line in asked.stdout.splitlines():
        pid, _, memory = (cell.strip() for cell in line.partition(","))
        if pid.isdigit() and int(pid) in processes:
            held = (held or 0) + (int(memory) if memory.isdigit() else 0)
        elif pid.isdigit():
            others += 1
    return held, others


_KINDS = {
    "unit": _check_unit,
    "http": _check_http,
    "models": _check_models,
    "chat": _check_chat,
    "embedding": _check_embedding,
    "key": _check_key,
    "redis": _check_redis,
    "gpu": _check_gpu,
}
