"""Answers on their way out: errors in OpenAI's shape, which name no engine."""

from __future__ import annotations

import ast
import functools
import json
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from modelyard_gateway.errors import Refusal, error_body, phrase
from modelyard_gateway.ledger import Note
from modelyard_gateway.rules import Rules
from modelyard_gateway.windows import for_clients

Send = Callable[[Mapping[str, Any]], Awaitable[None]]

LARGEST = 2**20
"""Bytes of an error that are read. What is longer is no message for anybody."""

TOO_LONG = "ContextWindowExceededError: "
"""What LiteLLM writes before the words of a request that is too long."""

PREFIX = re.compile(
    r"\A(?:litellm\.(\w+): (?:\1: )*|ContextWindowExceededError: |Timeout Error: "
    r"|[\w.-]+Exception - |APITimeoutError - )*(?:Error code: \d+ - )?"
)
"""Words before those of an engine: classes of LiteLLM, and what OpenAI's library says."""
SUFFIX = re.compile(
    r"\s*(?:Passed model=|pre-call-checks=|cooldown_list=|Received Model Group=|Available Model"
    r" Group Fallbacks="
    r"|Received Messages=|Original exception: |Traceback \(most recent call last\)|To disable this"
    r" security feature"
    r"|To let keys address |File \"[^\"\n]*\", line \d+).*",
    re.DOTALL,
)
"""And behind them: which deployments it had, what it tried, and a line of an engine's code."""
AGAIN = re.compile(rb"Try again in (\d+(?:\.\d+)?) seconds")
PLACES = (
    r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.]*\w)",
    r"Connect call failed \([^)]*\)",
    r"<[\w.]+ object at 0x[0-9a-f]+>",
)
"""Where an engine is, by whatever name it was reached."""
HIDDEN = "[hidden]"


class Answer:
    """What LiteLLM sends an answer through. Errors are read whole, and nothing else waits."""

    def __init__(self, send: Send, rules: Rules) -> None:
        self.send = send
        self.hidden = rules.hidden
        self.headers: Mapping[str, str] = {}
        """Headers of ours."""
        self.events = False
        self.start: dict[str, Any] = {}
        """How an error begins."""
        self.body = bytearray()
        self.note: Note | None = None
        """Whether an upstream was asked; None: none is."""

    async def __call__(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            # LiteLLM passes on what a provider says of the limit that we have there.
            kept = [
                pair
                for pair in message.get("headers", [])
                if not pair[0].startswith(b"x-ratelimit-")
            ]
            message = {**message, "headers": [*kept, *_encoded(self.headers)]}
            if message["status"] >= 400:
                self.start = message
                return
            kind = dict(message["headers"]).get(b"content-type", b"")
            self.events = kind.startswith(b"text/event-stream")
        elif self.start and message["type"] == "http.response.body":
            self.body += message.get("body", b"")[: LARGEST + 1 - len(self.body)]
            if not message.get("more_body"):
                await self.fail()
            return
        elif self.events and b'"error"' in message.get("body", b""):
            message = {**message, "body": events(message["body"], self.hidden)}
        await self.send(message)

    async def fail(self) -> None:
        """Send an error that is whole."""
        status = self.start["status"]
        if status == 500 and self.note is not None and not self.note.asked:
            # LiteLLM gave up on the request by itself: parts, tools and values that it cannot
            # translate.
            status = 400
        body = error(status, bytes(self.body), self.hidden)
        own = {b"content-type": b"application/json", b"content-length": str(len(body)).encode()}
        if status == 429 and (after := AGAIN.search(body)):
            # LiteLLM sends the header for some paths.
            own[b"retry-after"] = str(math.ceil(float(after[1]))).encode()
        kept = [pair for pair in self.start["headers"] if pair[0].lower() not in own]
        await self.send({**self.start, "status": status, "headers": [*kept, *own.items()]})
        await self.send({"type": "http.response.body", "body": body})


def error(status: int, raw: bytes, hidden: tuple[str, ...]) -> bytes:
    """An error of LiteLLM's, of FastAPI's, or of nobody's shape, in OpenAI's."""
    try:
        found = json.loads(raw)
    except ValueError:  # also what is longer than LARGEST
        found = None
    if isinstance(found, dict):
        found = found.get("error", found.get("detail"))
    return error_body(status, **_told(status, found, hidden))


def events(raw: bytes, hidden: tuple[str, ...]) -> bytes:
    """Events of a stream, of which one may be an error. LiteLLM sends them whole."""
    return b"\n".join(
        _event(line, hidden) if line.startswith(b"data: {") else line for line in raw.split(b"\n")
    )


def _event(line: bytes, hidden: tuple[str, ...]) -> bytes:
    try:
        found = json.loads(line.removeprefix(b"data: "))
    except ValueError:
        return line
    response = found.get("response")
    if isinstance(found.get("error"), dict):
        status = found["error"].get("code")
        status = int(status) if str(status).isdigit() and 400 <= int(status) < 600 else 500
        found["error"] = json.loads(error_body(status, **_told(status, found["error"], hidden)))[
            "error"
        ]
    elif isinstance(response, dict) and isinstance(response.get("error"), dict):
        response["error"]["message"] = words(str(response["error"].get("message")), hidden)
    elif found.get("type") == "error":  # of /v1/responses
        found["message"] = words(str(found.get("message")), hidden)
    else:
        return line
    return b"data: " + json.dumps(found, separators=(",", ":")).encode()


def _told(status: int, found: Any, hidden: tuple[str, ...]) -> dict[str, str]:
    """What an error says, by the names of error_body's parameters."""
    if not isinstance(found, dict):
        found = {"message": found if isinstance(found, str) else json.dumps(found) if found else ""}
    # LiteLLM and llama.cpp write a status there, OpenAI a word. That of another answer says nothing
    # about this one, nor does its type.
    number = str(found.get("code"))
    names: tuple[str, ...] = ("param", "code", "type")
    if number.isdigit():
        names = ("param", "type") if number == str(status) else ("param",)
    known = {name: found.get(name) for name in names}
    text = found.get("message") or found.get("error")
    message = words(text, hidden) if isinstance(text, str) else ""
    if isinstance(text, str) and TOO_LONG in text:
        known["code"] = "context_length_exceeded"
        message = for_clients(message)
    # LiteLLM writes its None as text.
    kept = {
        name: str(value)
        for name, value in known.items()
        if isinstance(value, (str, int)) and value != "None"
    }
    return {"message": message or phrase(status), **kept}


def words(text: str, hidden: tuple[str, ...]) -> str:
    """What an error says, in the words of who said it first, without places and ids."""
    text = SUFFIX.sub("", PREFIX.sub("", text))
    if text.startswith("{"):
        with suppress(ValueError, KeyError, TypeError, SyntaxError):
            # The engine's answer as it is, or as Python shows it.
            text = str(
                (json.loads if text.startswith('{"') else ast.literal_eval)(text)["error"][
                    "message"
                ]
            )
    return _places(hidden).sub(HIDDEN, text)


@functools.cache
def _places(hidden: tuple[str, ...]) -> re.Pattern[str]:
    hosts = {urlsplit(f"//{name}").hostname or "" for name in hidden if "/" not in name}
    # A host may have the name of an engine, which stands in many a message.
    names = [*hidden, *(host for host in hosts if re.search(r"[\d.:-]", host))]
    exact = "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
    url, word = rf"\w+://(?:{exact})[^\s'\"]*", rf"(?<![\w.-])(?:{exact})(?::\d+)?(?![\w-])"
    return re.compile("|".join([url, word, *PLACES]))


async def refuse(
    send: Send, refusal: Refusal, rest: Awaitable[None] | None, *, head: bool = False
) -> None:
    """Send a refusal. If there is a `rest` of the request, wait for it and end the connection."""
    if rest is None:
        await _whole(send, refusal.status, refusal.body(), refusal.headers, head=head)
        return
    await _whole(
        send,
        refusal.status,
        refusal.body(),
        {"connection": "close", **refusal.headers},
        head=head,
        more=True,
    )
    await rest
    await send({"type": "http.response.body", "body": b""})


async def tell(send: Send, body: Mapping[str, Any], *, head: bool = False) -> None:
    """Send an answer of ours."""
    await _whole(send, 200, json.dumps(body).encode(), {}, head=head)


async def _whole(
    send: Send,
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    head: bool,
    more: bool = False,
) -> None:
    headers = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    await send({"type": "http.response.start", "status": status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": b"" if head else body, "more_body": more})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
