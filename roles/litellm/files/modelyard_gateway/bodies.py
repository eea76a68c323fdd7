"""The body of a request: whole, in time, not too large, and understood in exactly one way."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
from starlette.datastructures import FormData
from starlette.requests import Request

from modelyard_gateway.errors import Refusal, shown

Receive = Callable[[], Awaitable[dict[str, Any]]]

DEEPEST = 100
"""Levels of nesting. LiteLLM walks through a body by recursion, and Python allows a thousand
calls."""

MOST = 500_000
"""Elements and fields. To parse, check, copy and send a million takes five seconds, in which a
worker does nothing else; it is some hundred bytes of memory for each."""

LARGEST = 2**63
"""Engines and orjson take whole numbers of 64 bits."""

REPEATABLE = ("image", "include", "timestamp_granularities")
"""Fields of a form that may stand in it several times, also with [] behind."""


REST_S = 5.0
"""Seconds for which what is left of a body that was refused is taken and thrown away."""


class Incoming:
    """What comes from a client, and whether all of it has."""

    def __init__(self, receive: Receive, headers: Mapping[bytes, bytes]) -> None:
        self.receive = receive
        self.whole = (
            b"transfer-encoding" not in headers and headers.get(b"content-length", b"0") == b"0"
        )

    async def __call__(self) -> dict[str, Any]:
        message = await self.receive()
        self.whole = self.whole or message["type"] != "http.request" or not message.get("more_body")
        return message

    async def discard(self, limit: int) -> None:
        """Take the rest, up to `limit` bytes and for REST_S.

        A connection that is closed before is reset, and then the client may not see the answer that
        it has got.
        """

        async def rest() -> None:
            taken = 0
            while not self.whole and taken <= limit:
                taken += len((await self()).get("body", b""))

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(rest(), REST_S)


class Left(Exception):  # noqa: N818  # no error
    """The client went away before its request was whole."""


async def read(
    receive: Receive, headers: Mapping[bytes, bytes], limit: int, deadline_s: float
) -> bytes:
    """Return the whole body.

    Raises Refusal: too large (413), too late (408), encoded (415). Raises Left.
    """
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise Refusal(415, "The body has a Content-Encoding; send it as it is.")
    too_large = Refusal(413, f"The body is larger than {limit // 2**20} MiB.")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limit:
        raise too_large

    async def whole() -> bytes:
        parts = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Left
            parts += message.get("body", b"")
            if len(parts) > limit:
                raise too_large
            if not message.get("more_body"):
                return bytes(parts)

    try:
        return await asyncio.wait_for(whole(), deadline_s)
    except asyncio.TimeoutError:  # noqa: UP041  # two classes until Python 3.11
        text = f"The body was not whole after {deadline_s:g} s."
        raise Refusal(408, text) from None


def replay(body: bytes, receive: Receive) -> Receive:
    """Something to receive from that gives a body that was read, and then what comes: that the
    client leaves.
    """
    given = False

    async def again() -> dict[str, Any]:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def parse_json(raw: bytes) -> dict[str, Any]:
    """Return the object that the body is.

    Raises Refusal for what is no JSON, no object, or ambiguous (400), and for what has too many
    parts (413).
    """
    if len(raw) > MOST and parts(raw) > MOST:
        raise Refusal(413, f"The body has more than {MOST} elements and fields.")
    try:
        found = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_no_number,
            parse_float=_finite,
            parse_int=_whole,
        )
    except Refusal:
        raise
    except UnicodeDecodeError:
        raise Refusal(400, "The body is not UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Refusal(400, f"The body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise Refusal(400, f"The body has to be a JSON object, not {_kind(found)}.")
    check_depth(found)
    return found


def parts(raw: bytes) -> int:
    """About how many elements and fields JSON has, without parsing it."""
    # Without escapes a string ends at the next quotation mark.
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A field has at most two strings, each with two marks.
    if (fields := plain.count(b'"') // 4) > MOST:
        return fields
    outside = re.sub(rb'"[^"]*"', b"", plain)
    return sum(map(outside.count, (b",", b"[", b"{")))


def dump_json(body: Mapping[str, Any]) -> bytes:
    """The body as LiteLLM reads it again. Raises Refusal for text that is no Unicode (400)."""
    try:
        found: bytes = orjson.dumps(body)
    except TypeError as error:
        raise Refusal(400, f"The body cannot be passed on: {error}.") from None
    return found


async def parse_form(scope: dict[str, Any], raw: bytes, receive: Receive) -> dict[str, Any]:
    """Return the fields of a form, files as None.

    Raises Refusal for one that is broken or ambiguous (400).
    """
    try:
        # LiteLLM reads it in the same way.
        form = await Request(scope, replay(raw, receive)).form()
    except Exception as error:
        raise Refusal(
            400, f"The form cannot be read: {shown(getattr(error, 'detail', str(error)))}."
        ) from None
    try:
        return _fields(form)
    finally:
        await form.close()


def _fields(form: FormData) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    spelled: dict[str, str] = {}
    for name, value in form.multi_items():
        bare = name.partition("[")[0]
        # LiteLLM puts `name` and `name[]` together.
        if spelled.setdefault(bare, name) != name or (name in fields and bare not in REPEATABLE):
            raise Refusal(400, f"The form has the field {shown(bare)} twice.", param=bare[:100])
        fields[name] = value if isinstance(value, str) else None
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(
            name for name, times in Counter(name for name, _ in pairs).items() if times > 1
        )
        raise Refusal(400, f"The body has the field {shown(twice)} twice.", param=twice[:100])
    return found


def _no_number(text: str) -> None:
    raise Refusal(400, f"{text} is no number in JSON.")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refusal(400, f"The number {shown(text)} is too large.")
    return number


def _whole(text: str) -> int:
    # Python refuses to read thousands of digits; twenty are more than enough.
    if len(text) > 20 or not -LARGEST <= int(text) < LARGEST:
        raise Refusal(400, f"The number {shown(text)} is too large.")
    return int(text)


def check_depth(found: Any) -> None:
    """Raise Refusal if containers stand in containers too often."""
    level = [found]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> Refusal:
    return Refusal(400, f"The body is nested more than {DEEPEST} levels deep.")


def _kind(found: object) -> str:
    kinds = {
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return kinds.get(type(found), "null")
