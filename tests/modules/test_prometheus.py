"""The module that asks Prometheus, against a stand-in that answers well or in one of several bad
ways."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import modelyard_prometheus as prometheus
import pytest

ASKED: list[dict[str, list[str]]] = []
ANSWERS = {
    "good": (
        200,
        (
            b'{"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {},'
            b' "values": []}]}}'
        ),
    ),
    "bad": (
        400,
        b'{"status": "error", "errorType": "bad_data", "error": "parse error: unexpected end"}',
    ),
    "slow": (
        503,
        (
            b'{"status": "error", "errorType": "timeout", "error": "query timed out in expression'
            b' evaluation"}'
        ),
    ),
    "page": (502, b"<html>\n<h1>Bad Gateway</h1></html>"),
    "list": (200, b"[]"),
    "empty": (500, b""),
}


class StandIn(http.server.BaseHTTPRequestHandler):
    """Answers by the name of the query."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        ASKED.append(query)
        status, body = ANSWERS[query["query"][0]]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_is_its_series(url: str) -> None:
    found = prometheus.ask(url, "query_range", 7, query="good", start=1, end=2, step=1)
    assert found == [{"metric": {}, "values": []}]
    assert ASKED[-1] == {
        "query": ["good"],
        "start": ["1"],
        "end": ["2"],
        "step": ["1"],
        "timeout": ["7s"],
    }


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("bad", "answered 400: parse error: unexpected end"),
        ("slow", "answered 503: query timed out in expression evaluation"),
        ("page", "answered 502: <html> <h1>Bad Gateway</h1></html>"),
        ("list", "answered 200: []"),
        ("empty", "answered 500: nothing"),
    ],
)
def test_what_is_no_answer_is_told(url: str, query: str, said: str) -> None:
    with pytest.raises(prometheus.AnswerError, match=r"^Prometheus on http://127") as caught:
        prometheus.ask(url, "query", 7, query=query)
    assert str(caught.value).endswith(said)
