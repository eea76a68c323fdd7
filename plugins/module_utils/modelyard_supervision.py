"""Work that outlives the connection that asked for it, and is put right if it is killed.

Standard library only, because this runs with the target's Python.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import traceback
from typing import Any, Callable

from ansible.module_utils.modelyard_activation import Activation
from ansible.module_utils.modelyard_host import write_atomically


def in_a_child(work: Callable[[], dict[str, Any]]) -> tuple[int, int]:
    """Run `work`, which returns a report, in a process of its own.

    Returns its id and where the report can be read.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    try:
        report = work()
    except BaseException:  # the waiting process must get a report in any case
        report = {"failed": True, "msg": traceback.format_exc()}
    with contextlib.suppress(OSError), os.fdopen(writing, "wb") as pipe:  # its reader may be gone
        pipe.write(json.dumps(report).encode())
    os._exit(0)


def outcome(child: int, reading: int) -> dict[str, Any] | None:
    """Wait for the end of a child; returns its report, None if it was killed before it had one."""
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    try:
        return dict(json.loads(text))
    except ValueError:
        return None


def detached(activation: Activation, report_path: str) -> dict[str, Any]:
    """Switch in two processes that outlive this one: the second puts right what the first leaves if
    it is killed.

    An SSH connection that breaks ends this process, not the switch: the report stays on the host.
    """

    def supervise() -> dict[str, Any]:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        with open(f"{report_path}.lock", "w", encoding="utf-8") as lock:
            # The worker has it, too: as long as one of them lives no other process switches this
            # service.
            fcntl.flock(lock, fcntl.LOCK_EX)
            activation.look()
            report = outcome(*in_a_child(lambda: activation.told(activation.execute)))
            if report is None:
                report = activation.told(activation.recover)
            with contextlib.suppress(
                OSError
            ):  # a full disk must not keep it from those who wait for it
                write_atomically(report_path, json.dumps(report), 0o600)
        return report

    return outcome(*in_a_child(supervise)) or {
        "failed": True,
        "msg": "the activation process was killed; the next run finishes or reverts the change",
    }
