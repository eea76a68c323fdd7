"""Runs Ansible's programs from a process that has already imported what they import of ours.

Two hundred tests run the real `ansible-playbook`, each from the start. A third of the processor
time of such a run is imports (pydantic, this project's models, Jinja). Here a server imports them
once and forks a process for each run. Nothing of Ansible is imported before the fork: it reads its
settings, and makes its temporary directory, when it is imported.

Run as a program, this file is the server; its argument is the path of its socket.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

BIN = Path(sys.executable).parent
LIMIT_S = 60
"""Seconds that a run may take."""
IMPORTED = (
    "modelyard.compile",
    "modelyard.operations.diff",
    "modelyard.output.render",
    "cryptography.fernet",
    "jinja2.nativetypes",
    "yaml",
)


class Warm:
    """A server, and what asks it. Several threads may ask at once."""

    def __enter__(self) -> Self:
        self._directory = tempfile.TemporaryDirectory()
        self._socket = f"{self._directory.name}/socket"
        self._server = subprocess.Popen(
            [sys.executable, __file__, self._socket],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None  # it is a pipe
        assert self._server.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()
        self._directory.cleanup()

    def run(
        self, command: Sequence[str], directory: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of this Python's environment; `stdout` has stderr in it.

        Raises subprocess.TimeoutExpired after LIMIT_S seconds.
        """
        with tempfile.NamedTemporaryFile(dir=self._directory.name) as output:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(self._socket)
                request = [str(BIN / command[0]), *command[1:]], str(directory), dict(environment)
                connection.sendall(json.dumps([*request, output.name]).encode() + b"\n")
                status = int(connection.makefile().readline())
            said = output.read().decode(errors="replace")
        if status == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(list(command), LIMIT_S, said)
        return subprocess.CompletedProcess(command, status, said)


def become(command: list[str], directory: str, environment: dict[str, str], output: str) -> None:
    """Turn this process into a run of the program."""
    os.setsid()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    for source, target in ((os.devnull, 0), (output, 1)):
        descriptor = os.open(source, os.O_RDWR)
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.dup2(1, 2)
    sys.argv = command
    sys.path[0] = os.path.dirname(command[0])
    runpy.run_path(command[0], run_name="__main__")


def answer(connection: socket.socket) -> None:
    """Fork the run that is asked for, wait for it, and say how it ended."""
    stream = connection.makefile("rw")
    request = json.loads(stream.readline())
    child = os.fork()
    if child == 0:
        connection.close()
        stream.close()
        become(*request)
        sys.exit()
    late = False

    def end(*_: object) -> None:
        nonlocal late
        late = True
        os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, end)
    signal.alarm(LIMIT_S)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(-signal.SIGALRM if late else status, file=stream, flush=True)


def serve(path: str) -> None:
    """Import, then fork a process for each connection."""
    import modelyard

    modelyard.WITH_DOCSTRINGS = False  # as plugins/vars/modelyard_package.py does
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        running: set[int] = set()
        while True:
            connection, _ = server.accept()
            running -= {one for one in running if os.waitpid(one, os.WNOHANG)[0]}
            running.add(child := os.fork())
            if child == 0:
                server.close()
                answer(connection)
                return
            connection.close()


if __name__ == "__main__":
    serve(sys.argv[1])
