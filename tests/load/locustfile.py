"""The load: every user asks one name after the other, plainly and as a stream. Started by
loadtest.py.

The key is the environment variable LITELLM_MASTER_KEY. The time to the first token of a stream is
an entry of its own in Locust's statistics, beside the requests and not counted among them.
"""

# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
from judge import CHAT, FIRST_TOKEN, STREAM
from locust import FastHttpUser, events, stats, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import ResponseContextManager
from locust.env import Environment
from locust.exception import StopUser

# Points of the page's plots; Locust's five seconds are for longer runs.
stats.HISTORY_STATS_INTERVAL_SEC = 1

MAX_TOKENS = 16


class AnswerError(Exception):
    """What is wrong with an answer. Locust shows failures by their `repr`: here the message
    alone."""

    __repr__ = Exception.__str__


@events.init_command_line_parser.add_listener
def arguments(parser: LocustArgumentParser, **_: Any) -> None:
    """Add our own arguments to Locust's."""
    parser.add_argument("--model", action="append", help="public name to ask")
    parser.add_argument("--requests", type=int, help="stop after so many")


class Client(FastHttpUser):
    """Asks without a pause. All clients share the turns, so each name is asked equally often in
    both ways."""

    connection_timeout = network_timeout = 30
    turns: Iterator[tuple[str, str]]
    ended = False

    @task
    def ask(self) -> None:
        """Send the next request."""
        try:
            kind, model = next(self.turns)
        except StopIteration:
            if not self.ended:
                type(self).ended = True
                # It waits for its clients to end, so none of them can wait for it.
                gevent.spawn(self.environment.runner.quit)
            raise StopUser from None
        body = {
            "model": model,
            "messages": [{"role": "user", "content": "Say hello."}],
            "max_tokens": MAX_TOKENS,
            "stream": kind == STREAM,
        }
        started = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions",
            name=model,
            json=body,
            headers={"Authorization": f"Bearer {os.environ['LITELLM_MASTER_KEY']}"},
            stream=kind == STREAM,
            # Nobody leads the load to another host.
            allow_redirects=False,
            catch_response=True,
        ) as response:
            response.request_meta["request_type"] = kind
            if response.status_code != 200:
                # No answer at all has the status 0 and an error that says why.
                response.failure(
                    AnswerError(f"status {response.status_code}")
                    if response.status_code
                    else response.error
                )
                return
            try:
                if kind == STREAM:
                    self.read_stream(response, model, started)
                elif not response.json()["choices"]:
                    raise AnswerError("an answer without choices")
            except Exception as error:
                response.failure(error)
            # Locust's own time of a stream ends with the headers.
            response.request_meta["response_time"] = (time.perf_counter() - started) * 1000

    def read_stream(self, response: ResponseContextManager, model: str, started: float) -> None:
        """Read a stream to its end, and note when the first token came."""
        waiting, ended = True, False
        # Locust's iter_lines hands out blocks of 1,024 bytes: the first token would be as late as
        # the last.
        while event := response.stream.readline(b"\n\n"):
            if event.startswith(b'data: {"error"'):
                raise AnswerError(f"an error in the stream: {event.decode()[6:200].strip()}")
            ended = event.startswith(b"data: [DONE]")
            if waiting and not ended and spoken(json.loads(event.removeprefix(b"data: "))):
                waiting = False
                entry = self.environment.stats.get(model, FIRST_TOKEN)
                entry.log(int((time.perf_counter() - started) * 1000), 0)
        if not ended:
            raise AnswerError("a stream without an end")


def spoken(event: dict[str, Any]) -> bool:
    """Whether an event of a stream brings text."""
    return any(choice["delta"].get("content") for choice in event["choices"])


@events.init.add_listener
def share_turns(environment: Environment, **_: Any) -> None:
    """Make the turns that the clients take."""
    options = environment.parsed_options
    assert options is not None
    turns = itertools.cycle(itertools.product((CHAT, STREAM), options.model))
    Client.turns = itertools.islice(turns, options.requests)


@events.quitting.add_listener
def write_failures(environment: Environment, **_: Any) -> None:
    """Write the failures where Locust writes its statistics: its own table of them lacks those of
    the last second."""
    failures = list(environment.stats.serialize_errors().values())
    Path("failures.json").write_text(json.dumps(failures, indent=4), encoding="utf-8")
