"""An engine that does not exist: site.yml runs it and takes it away. It is one module, one registry
entry, one role.

What the core makes of such a module is in tests/unit/test_registry.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from modelyard_prometheus import evaluate
from modelyard_traffic import chat

ROOT = Path(__file__).resolve().parents[3]
UNIT = "modelyard-book-shelf@novels"
KEY = "sk-planted-master-key"

MODULE = '''\
"""An engine that does not exist."""

from pydantic import Field

from modelyard.engines.base import KEY_FILE, MODEL, OPTIONS, Engine, Flag, Metrics
from modelyard.kinds import Release, Version


class ShelfVersion(Release):
    """The release of Shelf."""

    version: Version = Field(examples=["2.2.0"])
    """The version of Shelf."""


ENGINE = Engine(
    title="Shelf",
    provider_type="shelf",
    role="book_shelf",
    version=ShelfVersion,
    version_example={"version": "2.2.0"},
    keys=frozenset({"port"}),
    ready_timeout_s=60,
    health="/up",
    metrics=Metrics(keyed=False),
    vector=(
        Flag("books", MODEL),
        Flag("call", lambda process: process.model.served),
        Flag("host", lambda process: process.address),
        Flag("port", lambda process: process.port),
        OPTIONS,
        Flag("key", KEY_FILE),
    ),
)
'''

SERVER = '''\
"""Answers every chat with one word."""

import argparse
import http.server
import json

parser = argparse.ArgumentParser()
for option in ("books", "call", "host", "key"):
    parser.add_argument(f"--{option}", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--word", default="")
parser.add_argument("--check", action="store_true")
given = parser.parse_args()
if given.check:
    raise SystemExit
open(given.books, "rb").close()
KEY = open(given.key, encoding="utf-8").read()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def say(self, status, text, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/up":
            self.say(200, "{}")
        elif self.path == "/metrics":
            self.say(200, "shelf_books 1\\n", "text/plain")
        elif self.headers["Authorization"] != f"Bearer {KEY}":
            self.say(401, "{}")
        else:
            self.say(200, json.dumps({"object": "list", "data": [{"id": given.call, "object": "model"}]}))

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            return self.say(401, "{}")
        said = {"id": "x", "object": "chat.completion", "created": 1, "model": given.call}
        choice = {"index": 0, "finish_reason": "stop"}
        message = {"role": "assistant", "content": given.word}
        if not asked.get("stream"):
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            return self.say(200, json.dumps({**said, "choices": [{**choice, "message": message}], "usage": usage}))
        piece = {**said, "object": "chat.completion.chunk", "choices": [{**choice, "delta": message}]}
        self.say(200, f"data: {json.dumps(piece)}\\n\\ndata: [DONE]\\n\\n", "text/event-stream")


http.server.ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()
'''

ROLE = {
    "files/server.py": SERVER,
    "tasks/main.yml": (
        """\
---
- name: Run the instances
  ansible.builtin.import_role:
    name: engine
    rolespec_validate: false
  vars:
    engine_role: book_shelf
    engine_title: Shelf
    engine_artifact: "{{ __book_shelf_artifact.path }}"
    engine_program: [/usr/bin/python3, -I, "{{ engine_artifact }}/server.py"]
    engine_models: ["{{ engine_instance.source }}"]
    engine_validate: ["{{ engine_program + __engine_argv + ['--check'] }}"]

- name: Retire the instances that are no longer wanted
  ansible.builtin.import_role:
    name: engine
    tasks_from: retire.yml
  vars:
    engine_role: book_shelf
"""
    ),
    "tasks/preflight.yml": (
        """\
---
- name: Check the version
  ansible.builtin.assert:
    that: engine_plan.version is version('2.1', '>=')
    quiet: true
"""
    ),
    "tasks/install.yml": (
        """\
---
- name: Install Shelf
  modelyard_artifact:
    name: book-shelf
    version: "{{ engine_plan.version }}"
    sources:
      - {name: server.py, path: "{{ role_path }}/files/server.py"}
    script: |
      #!/bin/sh
      cp "$SOURCES/server.py" "$DEST"
  register: __book_shelf_artifact
"""
    ),
    "templates/modelyard-book-shelf.service.j2": (
        """\
{% extends 'engine.j2' %}
{% block process %}
TimeoutStopSec=5
{% endblock %}
"""
    ),
}

WANTED: dict[str, Any] = {
    "versions": {"book_shelf": {"version": "2.2.0"}},
    "providers": {
        "upstairs": {
            "type": "shelf",
            "group": "llm_llama_cpp_native",
            "port": 7000,
            "models": [
                {
                    "name": "novels",
                    "served_name": "fiction",
                    "source": {"path": "/srv/lab/models/tiny.gguf"},
                    "options": {"word": "once"},
                }
            ],
        }
    },
    "routing": {"fallbacks": {"novels": {"terminal": True}}},
}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this tree that has the engine."""
    copy = tmp_path_factory.mktemp("clone")
    for name in ("src", "plugins", "roles", "playbooks", "group_vars"):
        shutil.copytree(
            ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("site.yml", "ansible.cfg"):
        shutil.copy(ROOT / name, copy)
    (copy / "src/modelyard/engines/shelf.py").write_text(MODULE, encoding="utf-8")
    registry = copy / "src/modelyard/engines/__init__.py"
    text = registry.read_text(encoding="utf-8")
    base = "from modelyard.engines.base import "
    entry, found = re.subn(r"(= \([\w., \n]*\.ENGINE),?\s*\)", r"\1, shelf.ENGINE)", text, count=1)
    assert found
    entry = entry.replace(base, f"from modelyard.engines import shelf\n{base}", 1)
    registry.write_text(entry, encoding="utf-8")
    for path, content in ROLE.items():
        file = copy / "roles/book_shelf" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    return copy


def site(clone: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the copy's site.yml for the scenario's hosts."""
    environment = {"ANSIBLE_CONFIG": str(clone / "ansible.cfg"), "PYTHONPATH": str(clone / "src")}
    command = ["ansible-playbook", "site.yml", "-e", json.dumps(variables)]
    return subprocess.run(
        command,
        cwd=clone,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def watched(host: Any, limit_s: float) -> bool:
    """Whether Prometheus gets the engine's metrics within so many seconds."""
    up = 'up{job="book_shelf"} == 1'
    deadline = time.monotonic() + limit_s
    while not (found := evaluate(host, [up])[up]) and time.monotonic() < deadline:
        time.sleep(1)
    return bool(found)


def test_a_new_engine_is_deployed_watched_and_retired(clone: Path, host: Any) -> None:
    door = f"http://{host.ansible.get_variables()['ansible_host']}:4000"
    done = site(clone, llm_overrides_shelf=WANTED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "once" in chat(door, KEY, "novels")
    assert chat(door, KEY, "novels", stream=True).rstrip().endswith("data: [DONE]")
    assert host.service(UNIT).is_running
    score = host.check_output(
        f"systemd-analyze security {UNIT} | tail -1 | grep -oE '[0-9]+\\.[0-9]+'"
    )
    assert float(score) <= 1.6
    assert watched(host, 120)
    again = site(clone, llm_overrides_shelf=WANTED)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "changed=0" in again.stdout.partition("PLAY RECAP")[2], again.stdout

    gone = site(clone, llm_allow_removal=True)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert host.run(f"systemctl cat {UNIT}").rc != 0
    assert not host.file("/opt/modelyard/services/book-shelf@novels/current").exists
    assert host.service("modelyard-llama-cpp@llama-cpp-native").is_running
