"""Traffic for tests that change something under it: a steady client and a streaming one, bounded in
count and time."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

RATE = 5.0
"""Requests a second. Tests share two cores with the hosts they test, and with another scenario: at
20 a gateway beside a starting candidate answered its readiness too late at a load of 8, and HAProxy
took it out of rotation."""
MAX_S = 180.0


@dataclass
class Traffic:
    """Asks `rate` times a second, and streams no oftener, until the block ends (`max_s` at
    most)."""

    url: str
    key: str
    model: str
    rate: float = RATE
    max_s: float = MAX_S
    answered: int = 0
    streams: int = 0
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self.max_s
        for work in (self._ask_steadily, self._stream_steadily):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)
        time.sleep(1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        time.sleep(1)
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _running(self) -> bool:
        return not self._stop.is_set() and time.monotonic() < self._deadline

    def _ask_steadily(self) -> None:
        workers: list[threading.Thread] = []
        following = time.monotonic()
        while self._running():
            worker = threading.Thread(target=self._ask, daemon=True)
            worker.start()
            workers.append(worker)
            following += 1 / self.rate
            time.sleep(max(0.0, following - time.monotonic()))
        for worker in workers:
            worker.join(30)

    def _ask(self) -> None:
        try:
            answer = json.loads(chat(self.url, self.key, self.model))
            assert answer["choices"], answer
            self.answered += 1
        except Exception as error:
            self.failures.append(f"request: {error!r}")

    def _stream_steadily(self) -> None:
        while self._running():
            try:
                text = chat(self.url, self.key, self.model, stream=True)
                assert text.rstrip().endswith("data: [DONE]"), text[-200:]
                assert '"error"' not in text, text[-200:]
                self.streams += 1
                time.sleep(1 / self.rate)
            except Exception as error:
                self.failures.append(f"stream: {error!r}")
                time.sleep(0.2)


def chat(url: str, key: str, model: str, **extra: Any) -> str:
    """Ask one question; returns the body, raises on any status but 200."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 16,
        **extra,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())
