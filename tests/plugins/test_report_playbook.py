"""playbooks/report.yml from the command line to the page. Prometheus is a stand-in that knows one
name."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., CompletedProcess[str]]


class StandIn(http.server.BaseHTTPRequestHandler):
    """Was there all the time, and saw three requests a step."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        found: list[Any] = []
        if query["query"].startswith("max(count_over_time(up"):
            found = [({}, "4")]
        elif "litellm_proxy_total_requests" in query["query"]:
            found = [({"requested_model": "llama-cpp-native"}, "3")]
        times = range(
            int(query.get("start", 0)), int(query.get("end", 0)) + 1, int(query.get("step", 1))
        )
        result = [
            {"metric": labels, "values": [[time, text] for time in times]} for labels, text in found
        ]
        body = json.dumps(
            {"status": "success", "data": {"resultType": "matrix", "result": result}}
        ).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def prometheus() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), StandIn) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def report(ansible: Run, stack: Path, tmp_path: Path) -> Run:
    """Run the playbook in `tmp_path`; Prometheus is on this machine, at this port."""

    def run(port: int, *arguments: str) -> CompletedProcess[str]:
        watcher = (
            "        llm_monitoring: {hosts: {localhost: {llm_address: 203.0.113.3,"
            " ansible_connection: local}}}\n"
        )
        (stack / "hosts.yml").write_text((stack / "hosts.yml").read_text() + watcher)
        variables = [
            "-e",
            json.dumps({"llm_overrides": {"monitoring": {"prometheus": {"port": port}}}}),
        ]
        playbook = str(ROOT / "playbooks/report.yml")
        config = str(ROOT / "ansible.cfg")
        return ansible(
            "ansible-playbook",
            playbook,
            "-i",
            stack,
            *variables,
            *arguments,
            directory=tmp_path,
            ANSIBLE_CONFIG=config,
        )

    return run


def test_the_page_is_written_where_one_is_whatever_limit_says(
    report: Run, prometheus: int, tmp_path: Path
) -> None:
    done = report(prometheus, "-e", "hours=2", "--limit", "gpu")
    assert done.returncode == 0, done.stdout
    (page,) = tmp_path.glob("report-*.html")
    assert re.fullmatch(r"report-\d{4}-\d\d-\d\d\.html", page.name)
    assert page.as_uri() in done.stdout
    assert "requests 360, answered 100 %" in done.stdout
    text = page.read_text(encoding="utf-8")
    assert "What happened on inventory" in text
    assert str(tmp_path) not in text
    pool = '<th scope="row">llama_cpp_native.llama-cpp-native</th><td>gpu</td>'
    assert f'{pool}<td class="number">4</td><td class="number">60 s</td>' in text
    assert "plotly.js" in text[:200_000]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_in_check_mode_nothing_is_written(report: Run, prometheus: int, tmp_path: Path) -> None:
    done = report(prometheus, "--check", "-e", f"to={tmp_path}/page.html")
    assert done.returncode == 0, done.stdout
    assert "requests 864" in done.stdout
    assert "Check mode: nothing was written." in done.stdout
    assert not (tmp_path / "page.html").exists()


def test_without_an_answer_what_was_there_stays(report: Run, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("the one of yesterday")
    # Nobody listens there: it is no port of a service.
    done = report(1024, "-e", f"to={page}")
    assert done.returncode != 0
    assert "Prometheus on http://127.0.0.1:1024: connection refused" in done.stdout
    assert "try: journalctl -u modelyard-prometheus.service -n 50    (on localhost)" in done.stdout
    assert page.read_text() == "the one of yesterday"


def test_a_page_that_cannot_be_written_is_told(
    report: Run, prometheus: int, tmp_path: Path
) -> None:
    done = report(prometheus, "-e", f"to={tmp_path}/none/page.html")
    assert done.returncode != 0
    wanted = (
        f"the report cannot be written to {tmp_path}/none/page.html: No such file or directory PLAY"
        " RECAP"
    )
    assert wanted in " ".join(done.stdout.replace("'", "").split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"hours": "a day"},
            "hours=a day: how many hours back? A number above zero, for example -e hours=24",
        ),
        (
            {"llm_monitoring": False},
            (
                "This inventory has no monitoring, so there is nothing to report: its group"
                " llm_monitoring"
            ),
        ),
    ],
)
def test_what_makes_no_sense_is_refused(report: Run, arguments: dict[str, Any], said: str) -> None:
    done = report(9090, "-e", json.dumps(arguments))
    assert done.returncode != 0
    assert said in done.stdout
