"""The parent process of the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gateway, compiled, plan
from stubs import Stubs

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: model}]
"""


@pytest.fixture(scope="module")
def gateway(
    environment: Path, tmp_path_factory: pytest.TempPathFactory, stubs: Stubs
) -> Iterator[Gateway]:
    with Gateway(
        environment, plan(compiled(CATALOGUE)), tmp_path_factory.mktemp("gateway"), workers=2
    ) as gateway:
        yield gateway


def workers(gateway: Gateway) -> list[int]:
    """The processes that answer."""
    assert gateway.process is not None
    found = subprocess.run(
        ["pgrep", "-P", str(gateway.process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.full
def test_a_worker_that_is_killed_while_it_is_asked_is_replaced(gateway: Gateway) -> None:
    """The kernel kills for memory when a worker is busiest: then its parent's question is always
    unanswered."""
    first, second = workers(gateway)
    os.kill(first, signal.SIGSTOP)
    time.sleep(1.5)
    os.kill(first, signal.SIGKILL)
    started = time.monotonic()
    while len(now := workers(gateway)) < 2 or first in now:
        assert time.monotonic() - started < 10, now
        time.sleep(0.1)
    assert second in now
