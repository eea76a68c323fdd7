"""NVIDIA GPUs of the host, as `nvidia-smi` reports them.

    nvidia-smi --query-gpu=...  every GPU; the fields have names, and one that a driver lacks is an
                                error
    nvidia-smi -q               the driver's CUDA version, the memory of MIG instances, the programs
                                on every GPU
    nvidia-smi -L               profiles and UUIDs of MIG instances; called only where a GPU has MIG
                                mode on

Not `-q -x`: it has neither compute capabilities nor UUIDs of MIG instances, and it is not always
well-formed XML (raw bytes in names of processes and missing tags in `supported_mem_clock` have been
reported). Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any, Callable

PROGRAM = "nvidia-smi"

FIELDS = (
    "index",
    "uuid",
    "name",
    "memory.total",
    "memory.free",
    "compute_cap",
    "mig.mode.current",
    "driver_version",
)
# For all calls together. Without persistence mode each call wakes up every GPU first, and there may
# be eight.
TIMEOUT_S = 60.0

# Drivers from 610 on say "CUDA UMD Version" too, and announce that the old name will go.
_CUDA_VERSION = re.compile(r"^CUDA (?:UMD )?Version\s*: (\d+\.\d+)", re.MULTILINE)
_GPU_HEADING = re.compile(r"^GPU [0-9A-Fa-f:.]+$", re.MULTILINE)
_GPU_UUID = re.compile(r"^    GPU UUID\s*: (\S+)$", re.MULTILINE)
_MIG_SECTION = re.compile(r"^    MIG Device\n((?: {8}.*\n)+)", re.MULTILINE)
_MIG_INDEX = re.compile(r"^ {8}Index\s*: (\d+)$", re.MULTILINE)
_MIG_GPU_INSTANCE = re.compile(r"^ {8}GPU Instance ID\s*: (\d+)$", re.MULTILINE)
# "Shared FB Memory Usage" from driver 590 on.
_MIG_MEMORY = re.compile(r"FB Memory Usage\n\s+Total\s*: (\d+) MiB$", re.MULTILINE)
# Graphics programs too, which --query-compute-apps leaves out. The layout is the same from driver
# 525 to 595.
_PROCESS = re.compile(
    r"^ {8}(?:GPU instance ID\s*: (\S+)\n {8}Compute instance ID\s*: \S+\n {8})?Process ID\s*:"
    r" (\d+)\n"
    r"\s+Type\s*: .*\n\s+Name\s*: ?(.*)\n\s+Used GPU Memory\s*: (\S+)",
    re.MULTILINE,
)
_LISTED_GPU = re.compile(r"GPU \d+: .* \(UUID: (\S+)\)")
_LISTED_MIG = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (\S+)\)")


class SmiError(Exception):
    """`nvidia-smi` gave no answer; the text is for the user."""


class Smi:
    """The program `nvidia-smi` at a path, with one time limit (seconds) for all calls."""

    def __init__(self, path: str, timeout_s: float = TIMEOUT_S) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self.deadline = time.monotonic() + timeout_s

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Return exit status and output (both streams).

        Raises SmiError when it cannot be run or time is up.
        """
        try:
            process = subprocess.Popen(
                [self.path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise SmiError(f"{self.path} cannot be run: {error.strerror}") from error
        try:
            output, _ = process.communicate(timeout=max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            # Its end is not waited for, as subprocess.run would: inside a driver that hangs it
            # cannot even be killed.
            process.kill()
            raise SmiError(
                f"nvidia-smi gave no answer within {self.timeout_s:g} s: the driver hangs, see"
                " `dmesg`; usually only a reboot helps"
            ) from error
        return process.returncode, output


def find(get_bin_path: Callable[[str], str | None]) -> str | None:
    """Return where the program is, None where it is not installed; `get_bin_path` is the
    module's.
    """
    return get_bin_path(PROGRAM)


def survey(path: str | None, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Return the GPUs, the versions and a reason: what the module modelyard_gpu_facts returns and
    describes.

    `path` is the program's, None where it is not installed. A host without a usable GPU is no
    error: the list is empty.
    """
    facts: dict[str, Any] = {
        "gpus": [],
        "driver_version": None,
        "cuda_version": None,
        "reason": None,
    }
    if path is None:
        return {**facts, "reason": "nvidia-smi is not installed; it comes with the NVIDIA driver"}
    smi = Smi(path, timeout_s)
    try:
        status, answer = smi.ask(f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits")
        gpus, driver_version, complaints = parse_gpus(answer)
        if not gpus:
            said = " ".join(complaints) or "it lists no GPU"
            return {**facts, "reason": f"nvidia-smi: {said} (exit status {status})"}
        status, details = smi.ask("-q")
        complaints += _last_words(status, details)
        instances = {}
        if any(gpu["mig_mode"] == "enabled" for gpu in gpus):
            status, listing = smi.ask("-L")
            complaints += _last_words(status, listing)
            instances = parse_instances(listing, details)
    except SmiError as error:
        return {**facts, "reason": str(error)}
    programs = parse_processes(details)
    for gpu in gpus:
        gpu["mig_instances"] = instances.get(gpu["uuid"], [])
        gpu["processes"] = programs.get(gpu["uuid"], [])
    cuda_version = _CUDA_VERSION.search(details)
    return {
        "gpus": gpus,
        "driver_version": driver_version,
        "cuda_version": cuda_version.group(1) if cuda_version else None,
        "reason": f"nvidia-smi: {' '.join(dict.fromkeys(complaints))}" if complaints else None,
    }


def parse_gpus(answer: str) -> tuple[list[dict[str, Any]], str | None, list[str]]:
    """Return the GPUs, the driver's version, and the lines that are no GPU: errors and warnings
    stand between them.
    """
    gpus: list[dict[str, Any]] = []
    driver_version = None
    complaints = []
    for line in answer.splitlines():
        cells = line.split(", ")
        if len(cells) != len(FIELDS) or not cells[0].isdigit():
            complaints += [line.strip()] if line.strip() else []
            continue
        index, uuid, name, total, free, capability, mig_mode, driver = map(_value, cells)
        driver_version = driver
        gpus.append(
            {
                "index": _number(index),
                "uuid": uuid,
                "name": name,
                "memory_mib": _number(total),
                "memory_free_mib": _number(free),
                "compute_capability": capability,
                "mig_mode": mig_mode.lower() if mig_mode else None,
            }
        )
    return gpus, driver_version, complaints


def parse_instances(listing: str, details: str) -> dict[str, list[dict[str, Any]]]:
    """Return the MIG instances by UUID of their GPU: `-L` has their names, `-q` their memory, the
    index joins them.
    """
    described: dict[tuple[str, str], tuple[int | None, int | None]] = {}
    for section in _GPU_HEADING.split(details)[1:]:
        uuid = _first(_GPU_UUID, section)
        for text in _MIG_SECTION.findall(section):
            key = (uuid or "", _first(_MIG_INDEX, text) or "")
            described[key] = (
                _number(_first(_MIG_GPU_INSTANCE, text)),
                _number(_first(_MIG_MEMORY, text)),
            )
    found: dict[str, list[dict[str, Any]]] = {}
    uuid = ""
    for line in listing.splitlines():
        gpu, instance = _LISTED_GPU.match(line), _LISTED_MIG.match(line)
        if gpu:
            uuid = gpu.group(1)
        if instance:
            profile, index, instance_uuid = instance.groups()
            gpu_instance, memory_mib = described.get((uuid, index), (None, None))
            found.setdefault(uuid, []).append(
                {
                    "uuid": instance_uuid,
                    "profile": profile,
                    "gpu_instance": gpu_instance,
                    "memory_mib": memory_mib,
                }
            )
    return found


def parse_processes(details: str) -> dict[str, list[dict[str, Any]]]:
    """Return the programs that use a GPU, by its UUID."""
    return {
        _first(_GPU_UUID, section) or "": [
            {
                "pid": int(pid),
                "name": name.strip(),
                "gpu_instance": _number(gpu_instance),
                "memory_mib": _number(memory),
            }
            for gpu_instance, pid, name, memory in _PROCESS.findall(section)
        ]
        for section in _GPU_HEADING.split(details)[1:]
    }


def _value(cell: str) -> str | None:
    """Return a cell, None for `[N/A]`, `[Not Supported]`, `[Unknown Error]` and their like."""
    text = cell.strip()
    return None if text.startswith("[") or text in ("", "N/A", "Not Supported") else text


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match.group(1) if match else None


def _last_words(status: int, answer: str) -> list[str]:
    """Return the last line of a call that failed: the program prints what it can, then the
    error.
    """
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return lines[-1:] if status else []
