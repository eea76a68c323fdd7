"""What comes before a request is understood: the key before the body, its size, its time, and what
it is."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from harness import Gateway, compiled, plan, secret
from stubs import Stubs

CATALOGUE = """\
llm_providers:
  one: {type: openai_compatible, base_url: "http://192.0.2.1:8000/v1", models: [{name: a}]}
llm_routing: {fallbacks: {a: {terminal: true}}}
llm_gateway: {limits: {body_mib: 1, body_s: 1}, cooldown_s: 0.2}
llm_clients: {one: {secret: ONE_CLIENT_OF_THE_GATEWAY}}
"""
RESULT = compiled(CATALOGUE)
KEY = secret("ONE_CLIENT_OF_THE_GATEWAY")
CHAT = "/v1/chat/completions"
MIB = 2**20
QUESTION = {"model": "a", "messages": [{"role": "user", "content": "Who are you?"}]}


@pytest.fixture(scope="module")
def gateway(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    stubs.listen("192.0.2.1", 8000)
    running = Gateway(environment, plan(RESULT), tmp_path_factory.mktemp("bodies"))
    running.allow(plan(RESULT)["clients"])
    with running:
        yield running


def send(
    gateway: Gateway,
    headers: Mapping[str, str],
    *parts: bytes,
    path: str = CHAT,
    method: str = "POST",
) -> tuple[int, dict[str, object], float]:
    """Send a head and parts of a body as they are; returns status, error (if any) and how long the
    answer took."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: x",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
        started = time.monotonic()
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        for part in parts:
            connection.sendall(part)
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            taken = time.monotonic() - started
            found = {}
            for line in answer:
                if not line.strip():
                    break
                name, _, value = line.decode().partition(":")
                found[name.lower()] = value.strip()
            raw = answer.read(int(found.get("content-length", 0)))
    body = json.loads(raw) if raw else {}
    return status, body.get("error", {}), taken


def headers(length: int | None, key: str | None = KEY, **more: str) -> dict[str, str]:
    """Headers of a request whose body is so long, or chunked."""
    size = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    known = {} if key is None else {"Authorization": f"Bearer {key}"}
    return {"Content-Type": "application/json", **known, **size, **more}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@pytest.mark.parametrize("key", [None, "", "sk-of-nobody"])
@pytest.mark.parametrize("length", [10, 250 * MIB, None])
def test_without_a_key_the_body_is_not_waited_for(
    gateway: Gateway, key: str | None, length: int | None
) -> None:
    status, error, taken = send(gateway, headers(length, key))
    assert (status, error["code"]) == (401, "invalid_api_key")
    assert taken < 0.9, "before the deadline of a body"


def memory(gateway: Gateway) -> int:
    """KiB of the gateway's process."""
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def test_large_bodies_without_a_key_cost_no_memory(gateway: Gateway) -> None:
    before = memory(gateway)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", gateway.port), timeout=20) as connection:
            head = [f"{name}: {value}" for name, value in headers(250 * MIB, None).items()]
            connection.sendall(
                "\r\n".join([f"POST {CHAT} HTTP/1.1", "Host: x", *head, "", ""]).encode()
            )
            sent = 0
            with suppress(ConnectionError):
                while sent < 250:
                    connection.sendall(b"a" * MIB)
                    sent += 1
        assert sent < 100, "it was taken although nobody knows who sends it"
    assert memory(gateway) - before < 20_000


@pytest.mark.parametrize(
    ("size", "key", "wanted"), [(70_000, None, 401), (MIB, None, 401), (2 * MIB - 1, KEY, 413)]
)
def test_a_client_that_sends_all_before_it_reads_sees_the_refusal(
    gateway: Gateway, size: int, key: str | None, wanted: int
) -> None:
    for _ in range(10):
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        connection.request("POST", CHAT, b"a" * size, headers(size, key))
        response = connection.getresponse()
        assert response.status == wanted
        assert json.load(response)["error"]
        connection.close()


def test_a_body_may_be_as_large_as_the_limit(gateway: Gateway, stubs: Stubs) -> None:
    body = json.dumps(
        {**QUESTION, "messages": [{"role": "user", "content": "x" * (MIB - 200)}]}
    ).encode()
    with stubs.recording() as calls:
        assert send(gateway, headers(len(body)), body)[0] == 200
        assert (
            send(gateway, headers(None), chunk(body[:9]), chunk(body[9:]), b"0\r\n\r\n")[0] == 200
        )
    assert len(calls) == 2


def test_a_larger_one_is_refused(gateway: Gateway, stubs: Stubs) -> None:
    with stubs.recording() as calls:
        status, error, taken = send(gateway, headers(MIB + 1))
        assert (status, error["code"]) == (413, "request_too_large")
        assert taken < 0.9, "not a byte of it was waited for"
        status, error, _ = send(gateway, headers(None), chunk(b" " * MIB), chunk(b" "))
        assert (status, error["message"]) == (413, "The body is larger than 1 MiB.")
    assert calls == []


@pytest.mark.parametrize("length", [1000, None])
def test_a_body_that_never_ends_is_given_up(
    gateway: Gateway, stubs: Stubs, length: int | None
) -> None:
    part = b'{"model": "a",' if length else chunk(b'{"model": "a",')
    with stubs.recording() as calls:
        status, error, taken = send(gateway, headers(length), part)
    assert (status, error["code"]) == (408, "request_timeout")
    assert 0.9 < taken < 5
    assert calls == []


def test_a_body_where_none_is_due_is_not_read(gateway: Gateway) -> None:
    status, _, taken = send(gateway, headers(1000), path="/v1/models", method="GET")
    assert status == 200
    assert taken < 0.9


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
        ("application/json, text/plain", 415),
    ],
)
def test_media_types(gateway: Gateway, kind: str, status: int) -> None:
    body = json.dumps(QUESTION).encode()
    found, error, _ = send(gateway, {**headers(len(body)), "Content-Type": kind}, body)
    assert found == status
    if status == 415:
        assert "Send the header Content-Type: application/json." in str(error["message"])


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def chat(more: str, messages: str = '[{"role": "user", "content": "x"}]') -> bytes:
    """A question with something more, as it is written."""
    return f'{{"model": "a", "messages": {messages}, {more}}}'.encode()


AMBIGUOUS = {
    "an array": b"[1, 2]",
    "a string": b'"x"',
    "a number": b"1",
    "null": b"null",
    "nothing": b"",
    "no JSON": b"{",
    "more than one": b"{} {}",
    "NaN": chat('"temperature": NaN'),
    "Infinity": chat('"temperature": -Infinity'),
    "a number that becomes infinite": chat('"temperature": 1e999'),
    "a number of more than 64 bits": chat('"seed": 9223372036854775808'),
    "a number of many digits": chat(f'"seed": {"9" * 5000}'),
    "a model twice": b'{"model": "b", "model": "a", "messages": []}',
    "a field twice, further inside": chat('"metadata": {"x": 1, "x": 2}'),
    "nested too deeply": chat(f'"metadata": {{"x": {nested(200)}}}'),
    "nested far too deeply": nested(100_000).encode(),
    "UTF-16": chat('"n": 1').decode().encode("utf-16"),
    "no UTF-8": b'{"model": "\xff"}',
    "half a character": chat('"user": "\\ud800"'),
    "a byte order mark": b"\xef\xbb\xbf" + chat('"n": 1'),
}


@pytest.mark.parametrize("what", AMBIGUOUS)
def test_what_can_be_understood_in_several_ways_is_refused(
    gateway: Gateway, stubs: Stubs, what: str
) -> None:
    """With a client's key, and with the master's; without one it is 401."""
    body = AMBIGUOUS[what]
    with stubs.recording() as calls:
        found = [
            send(gateway, headers(len(body), key), body)[0]
            for key in (KEY, secret("LITELLM_MASTER_KEY"), None)
        ]
    assert found == [400, 400, 401]
    assert calls == []
    assert "Traceback" not in gateway.log.read_text()


COSTLY = {
    "messages": (200, chat('"n": 1', json.dumps([{"role": "user", "content": "x"}] * 28_000))),
    "texts inside a text": (200, chat('"user": "{}"'.format(r"\\\"[{,a" * 100_000))),
    "fields, one of them twice": (
        400,
        chat(
            '"metadata": {{{}, "x": 1}}'.format(
                ", ".join(f'"{i}": 1' for i in range(70_000)) + ', "x": 1'
            )
        ),
    ),
    "elements": (413, chat(f'"metadata": {{"x": [1{",1" * 500_001}]}}')),
    "fields": (413, chat(f'"metadata": [{{}}{",{}" * 330_000}]')),
}


@pytest.mark.parametrize("what", COSTLY)
def test_many_parts_do_not_stop_a_worker(gateway: Gateway, what: str) -> None:
    """A worker that thinks about one request answers nobody else."""
    wanted, body = COSTLY[what]
    assert len(body) < MIB
    started = time.monotonic()
    status, error, _ = send(gateway, headers(len(body)), body)
    assert status == wanted, error
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_an_encoded_body_is_refused(gateway: Gateway, encoding: str) -> None:
    assert send(gateway, headers(2, **{"Content-Encoding": encoding}), b"{}")[0] == 415


def test_a_web_socket_is_not_opened(gateway: Gateway) -> None:
    """A request to change the protocol is one like any other."""
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    for path, wanted in (("/v1/realtime?model=a", 404), (CHAT, 405), ("/v1/models", 200)):
        status, _, taken = send(gateway, {**headers(0), **upgrade}, path=path, method="GET")
        assert (status, taken < 2) == (wanted, True), path
