"""Refusals, in the shape that OpenAI's clients parse."""

from __future__ import annotations

import json
from collections.abc import Mapping

CODES = {
    400: "bad_request",
    401: "invalid_api_key",
    403: "not_allowed",
    404: "unknown_url",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "request_too_large",
    415: "unsupported_media_type",
    429: "rate_limit_exceeded",
    500: "internal_error",
    502: "bad_gateway",
}

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
        return self.code or CODES.get(self.status, str(self.status))

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
        "code": code or CODES.get(status, str(status)),
    }
    return json.dumps({"error": error}).encode()


def shown(value: object) -> str:
    """Show on one line, shortened, what a client sent."""
    text = ascii(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
