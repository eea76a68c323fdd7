"""What the unit runs: uvicorn's command line, with workers that are copies of a process which has
LiteLLM in memory already.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import signal
from collections.abc import Sequence
from socket import socket

import uvicorn._subprocess
from uvicorn.main import main
from uvicorn.supervisors.multiprocess import SIGNALS, Process

start, run = Process.start, Process.target


def start_and_let_go(worker: Process) -> None:
    """Start a worker, and close its parent's copy of the worker's end of their pipe.

    The parent asks each worker twice a second whether it lives. While any copy of that end is open,
    a worker that dies with a question unanswered, as a busy one does, keeps its parent waiting for
    --timeout-worker-healthcheck: two minutes in which no worker is replaced and none is told to
    stop. Signals wait until the worker has handlers of its own: its parent's would swallow them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        start(worker)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    worker.child_conn.close()


def run_as_a_copy(worker: Process, sockets: Sequence[socket] | None = None) -> None:
    """Run a worker in a process that its parent has just copied."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    run(worker, sockets)


if __name__ == "__main__":
    # Importing LiteLLM takes 7 s of processor time and makes 700,000 objects that stay. So it is
    # done once for all workers, which share this memory, and a worker that died is replaced within
    # seconds. The collector looks at none of these objects: neither while they are made, a quarter
    # of the time, nor later, when all requests of a worker would wait half a second for it.
    gc.disable()
    importlib.import_module("litellm.proxy.proxy_server")
    gc.freeze()
    gc.enable()
    uvicorn._subprocess.spawn = multiprocessing.get_context("fork")
    Process.start, Process.target = start_and_let_go, run_as_a_copy
    main()
