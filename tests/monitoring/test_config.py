"""What Prometheus is told to ask in the shipped inventories, as the role writes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]

# The variables as playbooks/tasks/monitoring.yml hands them to the role.
PLAYBOOK = """\
- import_playbook: {root}/playbooks/validate.yml
- hosts: llm_monitoring
  connection: local
  gather_facts: false
  vars_files:
    - {root}/roles/prometheus/vars/main.yml
  vars:
    ansible_python_interpreter: "{{{{ ansible_playbook_python }}}}"
    plan: "{{{{ modelyard_compiled.plans[inventory_hostname] }}}}"
    prometheus_plan: "{{{{ plan.prometheus }}}}"
  tasks:
    - ansible.builtin.template:
        src: {root}/roles/prometheus/templates/prometheus.yml.j2
        dest: {destination}
        mode: "0600"
"""


@pytest.mark.parametrize("inventory", ["workstation", "lab", "lab-engines", "fleet"])
def test_prometheus_accepts_it_and_every_target_has_labels_of_its_own(
    promtool: str, tmp_path: Path, inventory: str
) -> None:
    path = written(tmp_path, inventory)
    command = [promtool, "check", "config", "--syntax-only", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # Of two with the same labels Prometheus would keep one answer, sometimes this and sometimes
    # that.
    found = [
        labels
        for entry in yaml.safe_load(path.read_text())["scrape_configs"]
        for labels in targets(entry)
    ]
    assert {"litellm", "haproxy", "node", "host", "redis"} < {labels["job"] for labels in found}
    assert [labels for place, labels in enumerate(found) if labels in found[:place]] == []


def written(work: Path, inventory: str) -> Path:
    """The file, of an inventory whose hosts are not there, as is nothing that the lab builds."""
    ollama = work / "lab/share/ollama/0.17.4/sha256sum.txt"
    ollama.parent.mkdir(parents=True)
    ollama.write_text(f"{'a' * 64}  ollama-linux-amd64.tar.zst\n")
    addresses = work / "addresses.yml"
    hosts = {f"lab{number}": {"ansible_host": f"192.0.2.{number}"} for number in (1, 2, 3)}
    addresses.write_text(json.dumps({"lab_addresses": {"hosts": hosts}}))
    playbook, destination = work / "playbook.yml", work / "prometheus.yml"
    playbook.write_text(PLAYBOOK.format(root=ROOT, destination=destination))
    inventories = ["-i", ROOT / "inventories" / inventory / "hosts.yml"]
    if inventory.startswith("lab"):
        inventories += ["-i", addresses]
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), *inventories, playbook],
        cwd=ROOT,
        env={**os.environ, "MODELYARD_CACHE": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return destination


def targets(entry: dict[str, Any]) -> list[dict[str, str]]:
    """The labels of each target of an entry, after its relabelling."""
    added = {rule["target_label"]: rule for rule in entry["relabel_configs"]}
    found = []
    for one in entry["static_configs"]:
        for address in one["targets"]:
            known = {**one["labels"], "__address__": address}
            made = {
                name: known[rule["source_labels"][0]]
                if "source_labels" in rule
                else rule["replacement"]
                for name, rule in added.items()
            }
            found.append(
                {
                    name: text
                    for name, text in {**known, **made}.items()
                    if not name.startswith("__")
                }
            )
    return found
