"""What the unit runs: uvicorn's command line, whose parent process sees at once that a worker was
killed.
"""

from __future__ import annotations

from uvicorn.main import main
from uvicorn.supervisors.multiprocess import Process

start = Process.start


def start_and_let_go(worker: Process) -> None:
    """Start a worker, and close its parent's copy of the worker's end of their pipe.

    The parent asks each worker twice a second whether it lives. While any copy of that end is open,
    a worker that dies with a question unanswered, as a busy one does, keeps its parent waiting for
    --timeout-worker-healthcheck: two minutes in which no worker is replaced and none is told to
    stop.
    """
    start(worker)
    worker.child_conn.close()


if __name__ == "__main__":
    Process.start = start_and_let_go
    main()
