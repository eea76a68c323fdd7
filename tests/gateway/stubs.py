"""Recording stand-ins for model servers: they speak OpenAI's and Anthropic's API and fail on
demand.

Hand-written HTTP on asyncio, because a test decides how many bytes of an answer are sent before it
stops, which no server library offers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

Point = Literal["request", "headers", "role", "token", "end"]
"""How far an answer gets: nothing is sent, the headers, the chunk that only names the role, the
first token, all."""

POINTS: tuple[Point, ...] = ("request", "headers", "role", "token", "end")

CUT_AFTER_S = 0.2
"""What was sent arrives before the connection ends, as it does when an engine dies at work."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a stub does with a request for one model."""

    status: int = 200
    body: Mapping[str, Any] | bytes | None = None
    """Sent instead of an answer; bytes as they are."""
    headers: Mapping[str, str] = field(default_factory=dict)
    until: Point = "end"
    then: Literal["silence", "cut"] = "silence"
    """What happens at `until`, if that is before the end: nothing more comes, or the connection is
    closed."""
    pace_s: float = 0
    """Seconds before each token of a stream."""
    finish_reason: str = "stop"
    events: tuple[bytes, ...] = ()
    """A stream's events, instead of what a stub says."""


OK = Behaviour()


@dataclass(frozen=True, slots=True)
class Call:
    """One request a stub got."""

    server: tuple[str, int]
    method: str
    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Mapping[str, Any]
    at: float
    """Seconds of the monotonic clock."""

    @property
    def model(self) -> str:
        """The model asked for, by the name the upstream knows it by."""
        return str(self.body.get("model", ""))


def is_trial(call: Call) -> bool:
    """Whether the gateway asks on its own behalf (modelyard_gateway/trials.py)."""
    asks = {name: value for name, value in call.body.items() if name != "model"}
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    return asks in (chat, {"input": "Hi"})


class Stub:
    """One server at one address and port."""

    def __init__(self, network: Stubs, address: str, port: int) -> None:
        self.network = network
        self.address = address
        self.port = port
        self.behaviours: dict[str, Behaviour] = {}
        """By served name; goes before what the whole network is told."""
        self.paths: dict[str, Behaviour] = {}
        """By path, as the network's."""
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    def start(self) -> None:
        """Listen. Raises OSError if the port is taken."""
        self.network.run(self._start())

    def stop(self) -> None:
        """Close the port and every connection: the next request is refused."""
        self.network.run(self._stop())

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self.port)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while (call := await self._read(reader)) is not None:
                is_asked = call.method == "POST" and not is_trial(call)
                (self.network.calls if is_asked else self.network.others).append(call)
                told = self.paths.get(call.path) or self.network.paths.get(call.path)
                behaviour = (
                    told
                    or (self.network.trials.get(call.model, OK) if is_trial(call) else None)
                    or self.behaviours.get(call.model)
                    or self.network.behaviours.get(call.model, OK)
                )
                async for part in answer(call, behaviour):
                    writer.write(part)
                    await writer.drain()
                if behaviour.until != "end" and behaviour.then == "silence":
                    await reader.read()  # until the client gives up
                    self.network.left.append(call)
                elif behaviour.until not in ("end", "request"):
                    await asyncio.sleep(CUT_AFTER_S)
                if behaviour.until != "end" or call.headers.get("connection") == "close":
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Call | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, path, _version = first.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        body = (
            {}
            if headers.get("content-type", "").startswith("multipart/") or not raw
            else json.loads(raw)
        )
        return Call((self.address, self.port), method, path, headers, body, time.monotonic())


class Stubs:
    """All stubs of a test process: one event loop in a thread of its own, one record of calls in
    order."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        """What asks a model."""
        self.others: list[Call] = []
        """What asks for anything else, like the list of models."""
        self.behaviours: dict[str, Behaviour] = {}
        """By served name, on every stub."""
        self.left: list[Call] = []
        """Those that were given up by who asked while nothing came."""
        self.trials: dict[str, Behaviour] = {}
        """By served name, on every stub, what a request of the gateway's own gets."""
        self.paths: dict[str, Behaviour] = {}
        """By path, whatever is asked there: before any other."""
        self.stubs: dict[tuple[str, int], Stub] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stubs")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for stub in self.stubs.values():
            stub.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, what: Coroutine[Any, Any, T]) -> T:
        """Run something on the stubs' loop and return what it returned."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    def listen(self, address: str, port: int) -> Stub:
        """Return the stub at an address and port, listening."""
        key = (address, port)
        if key not in self.stubs:
            self.stubs[key] = Stub(self, address, port)
            self.stubs[key].start()
        return self.stubs[key]

    @contextmanager
    def recording(self) -> Iterator[list[Call]]:
        """Yield a list that holds the calls of the block when it has ended."""
        calls: list[Call] = []
        first = len(self.calls)
        yield calls
        calls += self.calls[first:]


async def answer(call: Call, behaviour: Behaviour) -> AsyncIterator[bytes]:
    """The bytes of an answer, as far as the behaviour lets them go."""
    reach = POINTS.index(behaviour.until)
    if reach == 0:
        return
    stream = bool(call.body.get("stream")) and behaviour.body is None
    if not stream:
        found = behaviour.body or (
            HEALTHY if call.path.startswith(("/health", "/api/version")) else whole(call, behaviour)
        )
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        yield _head(
            call,
            404 if found is NOTHING else behaviour.status,
            {"content-type": "application/json", **behaviour.headers},
            len(body),
        )
        if reach >= POINTS.index("token"):
            yield body if behaviour.until == "end" else body[: len(body) // 2]
        return
    yield _head(
        call, behaviour.status, {"content-type": "text/event-stream", **behaviour.headers}, None
    )
    for point, event in (
        (("end", event) for event in behaviour.events)
        if behaviour.events
        else events(call, behaviour)
    ):
        if reach < POINTS.index(point):
            return
        if behaviour.pace_s and point != "role":
            await asyncio.sleep(behaviour.pace_s)
        yield _chunk(event)
    yield b"0\r\n\r\n"


HEALTHY: Mapping[str, Any] = {"status": "ok"}
NOTHING: Mapping[str, Any] = {
    "error": {"message": "stub: nothing here", "type": "not_found_error", "code": 404}
}

USAGE: Mapping[str, int] = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


def text(model: str) -> list[str]:
    """What a stub says, by token."""
    return ["I", " am ", model]


def whole(call: Call, behaviour: Behaviour) -> Mapping[str, Any]:
    """A complete answer in the shape of the path that was asked."""
    if call.method == "GET" and call.path.endswith("/models"):
        return {"object": "list", "data": []}
    words = "".join(text(call.model))
    if call.path.endswith("/messages"):
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": [{"type": "text", "text": words}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 5, "output_tokens": 3},
        }
    if call.path.endswith("/embeddings"):
        return {
            "object": "list",
            "model": call.model,
            "data": [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}],
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        }
    if call.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": words}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": call.model,
            "choices": [{"index": 0, "message": message, "finish_reason": behaviour.finish_reason}],
            "usage": USAGE,
        }
    if call.path.endswith("/completions"):
        return {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": call.model,
            "choices": [
                text_choice(index, words, behaviour.finish_reason) for index in choices(call)
            ],
            "usage": USAGE,
        }
    if call.path.endswith("/responses"):
        message = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant"}
        return {
            "id": f"resp_{call.model}",
            "object": "response",
            "created_at": 1,
            "status": "completed",
            "model": call.model,
            "output": [
                {**message, "content": [{"type": "output_text", "text": words, "annotations": []}]}
            ],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8},
        }
    return NOTHING


def choices(call: Call) -> range:
    """The indices of the answers to a prompt."""
    return range(call.body.get("n") or 1)


def text_choice(index: int, text: str, finish: str | None = None) -> Mapping[str, Any]:
    """One choice of /completions."""
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish}


def events(call: Call, behaviour: Behaviour) -> Iterator[tuple[Point, bytes]]:
    """A stream's events, each with the point that is reached with it."""
    if behaviour.events:
        yield from (("end", event) for event in behaviour.events)
        return
    if call.path.endswith("/messages"):
        message = {**whole(call, behaviour), "content": [], "stop_reason": None}
        yield "role", _event({"type": "message_start", "message": message}, named=True)
        block = {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        }
        yield "role", _event(block, named=True)
        for position, word in enumerate(text(call.model)):
            delta = {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": word},
            }
            yield "end" if position else "token", _event(delta, named=True)
        yield "end", _event({"type": "content_block_stop", "index": 0}, named=True)
        stop = {"stop_reason": "end_turn", "stop_sequence": None}
        yield (
            "end",
            _event(
                {"type": "message_delta", "delta": stop, "usage": {"output_tokens": 3}}, named=True
            ),
        )
        yield "end", _event({"type": "message_stop"}, named=True)
        return
    if call.path.endswith("/responses"):
        response = whole(call, behaviour)
        yield (
            "role",
            _event(
                {"type": "response.created", "response": {**response, "output": []}}, named=True
            ),
        )
        delta = {
            "type": "response.output_text.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
        }
        for position, word in enumerate(text(call.model)):
            yield "end" if position else "token", _event({**delta, "delta": word}, named=True)
        yield "end", _event({"type": "response.completed", "response": response}, named=True)
        return
    if not call.path.endswith("/chat/completions"):
        yield from text_events(call, behaviour)
        return
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": call.model,
    }

    def choice(delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        return _event({**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})

    yield "role", choice({"role": "assistant", "content": ""})
    for position, word in enumerate(text(call.model)):
        yield "end" if position else "token", choice({"content": word})
    yield "end", choice({}, behaviour.finish_reason)
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield "end", _event({**chunk, "choices": [], "usage": USAGE})
    yield "end", b"data: [DONE]\n\n"


def text_events(call: Call, behaviour: Behaviour) -> Iterator[tuple[Point, bytes]]:
    """The events of a stream of /completions, as vLLM and llama.cpp send them: one choice in
    each."""
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": call.model}
    for position, word in enumerate(text(call.model)):
        for index in choices(call):
            yield (
                "end" if position else "token",
                _event({**chunk, "choices": [text_choice(index, word)]}),
            )
    for index in choices(call):
        yield "end", _event({**chunk, "choices": [text_choice(index, "", behaviour.finish_reason)]})
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield "end", _event({**chunk, "choices": [], "usage": USAGE})
    yield "end", b"data: [DONE]\n\n"


def _event(data: Mapping[str, Any], *, named: bool = False) -> bytes:
    name = f"event: {data['type']}\n" if named else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _head(call: Call, status: int, headers: Mapping[str, str], length: int | None) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    lines = [
        f"HTTP/1.1 {status} Stub",
        size,
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if call.headers.get("connection") == "close":
        lines.append(
            "connection: close"
        )  # Said before it is done, or the client uses the connection again.
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Knocks:
    """Records attempts to connect to ports where nothing listens: first packets of TCP over IPv4,
    in order.

    Reads the loopback device below the kernel's own TCP, which answers them. Needs root.
    """

    def __init__(self, ports: range) -> None:
        self.ports = ports
        self.seen: list[tuple[str, int]] = []
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.ntohs(0x0800)
        )  # ETH_P_IP
        self._socket.bind(("lo", 0x0800))
        self._socket.settimeout(0.2)
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="knocks")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while not self._stopped:
            try:
                packet, (_device, _protocol, kind, *_) = self._socket.recvfrom(128)
            except TimeoutError:
                continue
            if kind == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_TCP:
                continue  # Everything passes a loopback device twice.
            tcp = (packet[0] & 0x0F) * 4
            (port,) = struct.unpack_from("!H", packet, tcp + 2)
            flags = packet[tcp + 13]
            if port in self.ports and flags & 0x12 == 0x02:  # SYN without ACK
                self.seen.append((socket.inet_ntoa(packet[16:20]), port))
