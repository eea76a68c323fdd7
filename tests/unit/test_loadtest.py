"""`make loadtest` without a lab: where it may send a load, what it counts, and how it judges."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from catalogues import ROOT

sys.path.insert(0, str(ROOT / "tests/load"))

import loadtest
from judge import CHAT, FIRST_TOKEN, STREAM, UNTIMED, Entry, Failure, Limits, Run
from loadtest import LoadError, Target

LAB = ["10.213.7.11", "10.213.7.12"]
KEY = "sk-planted"


def entry(kind: str, times: dict[int, int], name: str = "one", failed: int = 0) -> Entry:
    return Entry(name, kind, sum(times.values()), failed, times, started=100.0, ended=110.0)


@pytest.fixture
def good() -> Run:
    """What a lab in good order shows: 200 answers in 10 seconds."""
    times = {80: 50, 120: 45, 300: 5}
    return Run([entry(CHAT, times), entry(FIRST_TOKEN, {30: 90, 90: 10}), entry(STREAM, times)], [])


def test_percentiles(good: Run) -> None:
    assert [good.entries[0].percentile(share) for share in (0.5, 0.95, 0.951, 0.99)] == [
        80,
        120,
        300,
        300,
    ]
    assert entry(CHAT, {}).percentile(0.5) is None


def test_the_table_has_a_row_per_name_and_kind(
    good: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert loadtest.report(good, Limits(), tmp_path) == 0
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()[1:4]] == [
        "name kind requests failed req/s p50 ms p95 p99 first token p50 p95 p99".split(),
        "one chat 100 0 10.0 80 120 300 - - -".split(),
        "one stream 100 0 10.0 80 120 300 30 90 90".split(),
    ]
    assert f"{tmp_path}/report.html" in said.out
    assert "MISSED" not in said.out
    assert said.err == ""


@pytest.mark.parametrize(
    ("impossible", "named"),
    [
        (
            {"first_token_p95_ms": 89},
            ["missed: p95 of the first token, one: 90 ms, limit: at most 89 ms"],
        ),
        (
            {"answer_p95_ms": 119},
            [
                "missed: p95 of a whole answer, one, chat: 120 ms, limit: at most 119 ms",
                "missed: p95 of a whole answer, one, stream: 120 ms, limit: at most 119 ms",
            ],
        ),
        ({"answers_per_s": 20.5}, ["missed: answers per second: 20.0, limit: at least 20.5"]),
    ],
)
def test_a_missed_threshold_is_named_and_fails(
    good: Run,
    impossible: dict[str, Any],
    named: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert loadtest.report(good, replace(Limits(), **impossible), tmp_path) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"loadtest: {line}" for line in named]
    assert said.out.count("MISSED") == len(named)


def test_a_failed_request_and_a_missing_first_token_are_missed_thresholds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = Run([entry(STREAM, {5: 9, 6: 1}, failed=2)], [Failure("one", STREAM, "status 503", 2)])
    assert loadtest.report(run, UNTIMED, tmp_path) == 1
    said = capsys.readouterr()
    assert said.err == "loadtest: missed: failed requests: 2, limit: at most 0\n"
    assert ["status", "503", "one,", "stream", "2"] in [
        line.split() for line in said.out.splitlines()
    ]
    assert loadtest.report(run, Limits(), tmp_path) == 1
    said = capsys.readouterr()
    assert "p95 of the first token, one: none seen, limit" in said.err
    assert "answers per second: 0.8, limit" in said.err


@pytest.mark.parametrize("name", ["inventories/lab", "inventories/lab/", "inventories/lab-engines"])
def test_inventories_of_the_lab(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert loadtest.main(["--check", "--inventory", name]) == 0


@pytest.mark.parametrize(
    "name", ["inventories/workstation", "inventories", "/etc/ansible/hosts", "inventories/lab/x"]
)
def test_other_inventories_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert loadtest.main(["--check", "--inventory", name]) == 2
    assert (
        capsys.readouterr().err
        == f"loadtest: INVENTORY={name}: a load is sent to the lab only: inventories/lab or"
        " inventories/lab-engines\n"
    )


@pytest.mark.parametrize("option", ["users", "seconds"])
@pytest.mark.parametrize("text", ["0", "-1", "100000", "4.5", "1e1", "²", "four", "", " 7"])
def test_silly_sizes_are_refused(
    option: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert loadtest.main(["--check", f"--{option}={text}"]) == 2
    assert capsys.readouterr().err.startswith(
        f"loadtest: {option.upper()}={text}: a whole number from "
    )


@pytest.mark.parametrize("address", [*LAB, "127.0.0.1", "127.9.9.9", "::1"])
def test_addresses_of_the_lab(address: str) -> None:
    loadtest.refuse_foreign(address, LAB)


@pytest.mark.parametrize(
    "address", ["10.213.7.13", "192.168.1.5", "0.0.0.0", "203.0.113.5", "localhost", "gateway", ""]
)
@pytest.mark.parametrize("lab", [LAB, []])
def test_foreign_addresses_are_refused(address: str, lab: list[str], tmp_path: Path) -> None:
    path = tmp_path / "target.json"
    path.write_text(json.dumps({"address": address, "port": 4000, "models": ["one"]}))
    with pytest.raises(LoadError, match="is no host of the lab"):
        Target.read(path, lab)


def test_a_target_without_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "target.json"
    path.write_text(json.dumps({"address": "::1", "port": 4000, "models": []}))
    with pytest.raises(LoadError, match="answers for any name"):
        Target.read(path, [])
    path.write_text(json.dumps({"address": "::1", "port": 4000, "models": ["one"]}))
    assert Target.read(path, []) == Target("http://[::1]:4000", ["one"])


class Stub(BaseHTTPRequestHandler):
    """A stand-in for the gateway: each name fails in a way of its own, `good` does not."""

    protocol_version = "HTTP/1.1"
    PAUSE_S = 0.3

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model, stream = asked["model"], asked["stream"]
        right = self.headers["Authorization"] == f"Bearer {KEY}"
        self.send_response({"refuses": 503, "moves": 307}.get(model, 200) if right else 401)
        self.send_header("Location", "http://192.0.2.1/")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if model in ("refuses", "moves"):
            self.chunk("{}")
        elif not stream:
            self.chunk(
                json.dumps(
                    {"choices": [] if model == "empty" else [{"message": {"content": "hello"}}]}
                )
            )
        else:
            self.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
            if model != "empty":
                self.event({"choices": [{"delta": {"content": "hello"}}]})
            time.sleep(self.PAUSE_S if model == "good" else 0)
            if model == "breaks":
                self.event({"error": {"message": "the engine is gone"}})
            if model == "cut":
                self.close_connection = True
                return
            self.chunk("data: [DONE]\n\n" if model != "ends early" else "")
        if not stream or model != "ends early":
            self.chunk("")

    def event(self, data: dict[str, Any]) -> None:
        self.chunk(f"data: {json.dumps(data)}\n\n")

    def chunk(self, text: str) -> None:
        self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def stub() -> Iterator[str]:
    """Address of a stand-in that is there during the test."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Stub) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_locust_counts_what_fails_and_stops_in_time(stub: str, tmp_path: Path) -> None:
    """Real Locust against a stand-in for the gateway; the number of requests ends it, long before
    the time."""
    names = ["good", "refuses", "moves", "empty", "breaks", "cut", "ends early"]
    started = time.monotonic()
    run = loadtest.locust(
        Target(stub, names), KEY, 2, 120, tmp_path / "results", requests=2 * 3 * len(names)
    )
    assert time.monotonic() - started < 100
    assert {(one.name, one.kind): (one.requests, one.failed) for one in run.entries} == {
        **{(name, CHAT): (3, 3 if name in ("refuses", "moves", "empty") else 0) for name in names},
        **{(name, STREAM): (3, 0 if name in ("good", "empty") else 3) for name in names},
        **{(name, FIRST_TOKEN): (3, 0) for name in ("good", "breaks", "cut", "ends early")},
    }
    assert [one.count for one in run.failures] == [3] * 8, run.failures
    said = {(one.name, one.kind): one.error for one in run.failures}
    assert said["refuses", CHAT] == said["refuses", STREAM] == "status 503"
    assert said["moves", CHAT] == said["moves", STREAM] == "status 307"
    assert "without choices" in said["empty", CHAT]
    assert "the engine is gone" in said["breaks", STREAM]
    assert "Incomplete" in said["cut", STREAM]
    assert "without an end" in said["ends early", STREAM]

    good, first = (
        next(one for one in run.entries if (one.name, one.kind) == ("good", k))
        for k in (STREAM, FIRST_TOKEN)
    )
    assert (good.percentile(0) or 0) >= Stub.PAUSE_S * 1000 > 0
    assert (first.percentile(0.5) or 0) < (good.percentile(0.5) or 0)
    assert "good" in (tmp_path / "results/report.html").read_text(encoding="utf-8")
    assert [
        path.name
        for path in (tmp_path / "results").iterdir()
        if KEY in path.read_text(encoding="utf-8")
    ] == []
