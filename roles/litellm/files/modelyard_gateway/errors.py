"""Refusals, in the shape that OpenAI's clients parse."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

CODES = {
    400: "bad_request",
    401: "invalid_api_key",
    403: "not_allowed",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    500: "internal_error",
    502: "bad_gateway",
}
"""Words of ours for a status. Any other has its name."""

SHOWN = 100
"""Characters of what a client sent that an error repeats."""


class Refusal(Exception):  # noqa: N818  # an answer
    """A request that is not served.

    Raised anywhere before the answer has begun; the guard sends it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def kind(self) -> str:
        """What is wrong, in a word of ours."""
        return self.code or code_of(self.status)

    def body(self) -> bytes:
        """The body of the answer."""
        return error_body(self.status, self.message, self.param, self.code)


def error_body(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    type: str | None = None,
) -> bytes:
    """An error as OpenAI's API words it."""
    kind = (
        "rate_limit_error"
        if status == 429
        else "invalid_request_error"
        if status < 500
        else "api_error"
    )
    error = {
        "message": message,
        "type": type or kind,
        "param": param,
        "code": code or code_of(status),
    }
    return json.dumps({"error": error}).encode()


def shown(value: object) -> str:
    """Show on one line, shortened, what a client sent."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def phrase(status: int) -> str:
    """The name of a status, also of one that is in no standard (Cloudflare's 52x, 529)."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Error" if status < 500 else "Server Error"


def code_of(status: int) -> str:
    """The code of an error that has none of its own: a word, as OpenAI's are."""
    return CODES.get(status) or phrase(status).lower().replace(" ", "_").replace("-", "_")
