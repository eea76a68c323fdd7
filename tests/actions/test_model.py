"""modelyard_model as roles call it: which options go together, and the token of a hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLAYBOOK = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - modelyard_model: "{{ item }}"
      loop: "{{ calls }}"
      ignore_errors: true # what is refused, and how, is compared in `results`
      check_mode: true
      register: found
    - ansible.builtin.copy: {content: "{{ found.results }}", dest: "{{ results }}"}
"""


def run(tmp_path: Path, calls: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the results of calls in check mode."""
    (tmp_path / "inventory").write_text("localhost\n", encoding="utf-8")
    (tmp_path / "model.yml").write_text(PLAYBOOK, encoding="utf-8")
    (tmp_path / "vars.json").write_text(
        json.dumps({"calls": calls, "results": str(tmp_path / "results")}), encoding="utf-8"
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(Path(__file__).parents[2] / "ansible.cfg")}
    arguments = ["-i", str(tmp_path / "inventory"), "-e", f"@{tmp_path}/vars.json"]
    done = subprocess.run(
        [program, *arguments, str(tmp_path / "model.yml")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads((tmp_path / "results").read_text(encoding="utf-8"))
    return found


def test_which_options_go_together(tmp_path: Path) -> None:
    """A file and a directory; nothing is fetched, because it is check mode."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    path, home = str(tmp_path / "model"), str(tmp_path)
    repo = {"repo": "o/n", "revision": COMMIT, "directory": home}
    url, sha256 = "http://127.0.0.1:1/m.gguf", "0123456789ABCDEF" * 4
    calls: list[tuple[dict[str, str], str]] = [
        ({"path": f"{path}.gguf"}, f"{path}.gguf"),
        ({"path": path, "form": "directory"}, path),
        ({"url": url, "sha256": sha256, "directory": home}, f"{home}/0123456789abcdef/m.gguf"),
        ({**repo, "file": "a/m.gguf", "sha256": sha256}, f"{home}/0123456789abcdef/m.gguf"),
        ({**repo, "form": "directory"}, f"{home}/hf/o--n/{COMMIT}"),
    ]
    refused: list[tuple[dict[str, str], str]] = [
        ({"path": path}, "is not a regular file"),
        ({"path": f"{path}.gguf", "form": "directory"}, "is not on this host"),
        ({"url": url, "sha256": sha256, "form": "directory"}, "form=directory has no url, sha256"),
        ({**repo, "form": "directory", "file": "m.gguf"}, "form=directory has no file"),
        (repo, "missing parameter(s) required by 'repo': file"),
        ({"url": url}, "missing parameter(s) required by 'url': sha256"),
        ({"url": url, "sha256": "0"}, "sha256 must be 64 hexadecimal digits, not '0'"),
        ({"repo": "o/n", "file": "m.gguf"}, "missing parameter(s) required by 'repo': revision"),
        ({**repo, "file": "m.gguf", "token_secret": "NO_TOKEN"}, "secret NO_TOKEN is not def"),
        ({"form": "directory"}, "one of the following is required: path, url, repo"),
    ]
    found = run(tmp_path, [call for call, _ in [*calls, *refused]])
    assert [one["path"] for one in found[: len(calls)]] == [expected for _, expected in calls]
    for one, (call, expected) in zip(found[len(calls) :], refused, strict=True):
        assert one["failed"], call
        assert expected in one["msg"], call
