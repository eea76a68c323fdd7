"""What `site.yml` costs with up to 200 hosts: a run that changes nothing, and a change of one model
on all of them; and what compiling 1,000 hosts costs.

Two hosts are lab hosts with a real llama.cpp. The others are none: the connection plugin `replay`
repeats what a lab host said in a run of the same kind, so the controller does all its work (but for
SSH's own, which it does for the lab hosts alone) and no host does any. The gateway is such a host,
too: it repeats what a lab host with a gateway said. Run by `make bench-fleet`. No test: a benchmark
compares and prints, it does not pass or fail.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

CLONE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
LAB = {"door": "gateway", "first": "engine", "second": "engine"}
SIZES = tuple(int(size) for size in os.environ.get("SIZES", "2 10 50 100 200").split())
CHANGED = tuple(int(size) for size in os.environ.get("CHANGED", "2 50").split())
BUDGET = {100: 60.0}
"""Seconds of a run that changes nothing, by hosts."""
COMPILED = 1000
UNUSED = ("llm_ollama", "llm_llama_cpp_python", "llm_vllm_qwen", "llm_vllm_dolphin")

os.environ.setdefault("MODELYARD_LAB", "fleet")


def lab_hosts() -> dict[str, dict[str, str]]:
    """Return how the lab's hosts are reached."""
    shown = subprocess.run(
        [CLONE / "lab/lab", "inventory", "--list"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, dict[str, str]] = json.loads(shown)["_meta"]["hostvars"]
    return found


class Fleet:
    """An inventory of lab hosts and of hosts that repeat what these said."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.lab = lab_hosts()
        (home / "group_vars/llm_stack").mkdir(parents=True)
        model: dict[str, Any] = {
            "name": "llama-cpp-native",
            "source": {"path": "/srv/lab/models/tiny.gguf"},
        }
        overrides = {"providers": {"llama_cpp_native": {"models": [model]}}}
        self._write("group_vars/llm_stack/llm.yml", {"llm_overrides": overrides})

    def _write(self, name: str, value: Any) -> None:
        (self.home / name).write_text(yaml.safe_dump(value), encoding="utf-8")

    def of(self, size: int, *, real: bool) -> None:
        """Make the inventory one of so many engine hosts and a gateway.

        `real`: of lab hosts alone.
        """
        engines = [name for name, kind in LAB.items() if kind == "engine"]
        names = engines[:size] + [f"e{number:04}" for number in range(len(engines), size)]
        hosts: dict[str, dict[str, str]] = {}
        how: dict[str, dict[str, Any]] = {}
        for number, name in enumerate(["door", *names]):
            known = self.lab.get(name)
            address = (
                known["ansible_host"] if known else f"10.99.{number // 250}.{number % 250 + 1}"
            )
            hosts[name] = {
                "ansible_host": address,
                "ansible_user": "root",
                "ansible_connection": "replay",
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            told: dict[str, Any] = {"like": "second" if name != "door" else "door"}
            if known and (real or name != "door"):
                told = {"ssh": self._ssh(known)}
            how[address] = {"name": name, **told}
        (self.home / "hosts.json").write_text(json.dumps(how), encoding="utf-8")
        door = {"hosts": {"door": None}}
        groups: dict[str, Any] = {"llm_gateway": door, "llm_redis": door, "llm_monitoring": {}}
        groups |= {name: {} for name in UNUSED}
        groups["llm_llama_cpp_native"] = {"hosts": dict.fromkeys(names)}
        stack = {"children": groups, "hosts": hosts}
        self._write("hosts.yml", {"all": {"children": {"llm_stack": stack}}})

    def _ssh(self, known: dict[str, str]) -> list[str]:
        more = shlex.split(known["ansible_ssh_common_args"])
        kept = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s"]
        key = ["-i", known["ansible_ssh_private_key_file"]]
        return ["ssh", *more, *kept, *key, f"root@{known['ansible_host']}"]

    def play(self, playbook: str, run: str, *arguments: str, keep: bool = False) -> Figures:
        """Run a playbook; `run` names the answers that are repeated, or kept. Ends the benchmark
        where it fails.
        """
        shutil.rmtree(self.home / "calls", ignore_errors=True)
        environment = {
            **os.environ,
            "ANSIBLE_CONNECTION_PLUGINS": str(HERE / "replay"),
            "MODELYARD_FLEET": str(self.home),
            "MODELYARD_FLEET_RUN": run,
        }
        if keep:
            shutil.rmtree(self.home / "said" / run, ignore_errors=True)
            environment["MODELYARD_FLEET_KEEP"] = "1"
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        command = ["ansible-playbook", playbook, "-i", str(self.home / "hosts.yml"), *arguments]
        done = subprocess.run(
            ["/usr/bin/env", "time", "-f", "%M", *command],
            cwd=CLONE,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            sys.exit(done.stdout[-8000:] + done.stderr[-4000:])
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        memory = int(done.stderr.strip().splitlines()[-1]) // 1024
        return Figures(seconds, cpu, memory, done.stdout)


class Figures:
    """What a run cost."""

    def __init__(self, seconds: float, cpu: float, memory_mib: int, output: str) -> None:
        self.seconds, self.cpu, self.memory_mib, self.output = seconds, cpu, memory_mib, output

    def recap(self, what: str, host: str) -> int:
        """Return a number from the line of a host in the summary: ok, changed."""
        text = self.output.partition("PLAY RECAP")[2]
        line = next((line for line in text.splitlines() if line.split(" ")[0] == host), "")
        return sum(map(int, re.findall(rf"{what}=(\d+)", line)))

    def show(self, what: str, size: int, budget: float | None = None) -> None:
        """Print one line."""
        tasks, changed = (self.recap(number, "second") for number in ("ok", "changed"))
        more = f"{tasks} tasks and {changed} changed on an engine host"
        if budget is not None:
            more += f"; budget {budget:.0f} s: {'met' if self.seconds < budget else 'MISSED'}"
        print(
            f"{what:<20} {size:>5} hosts  {self.seconds:7.1f} s  {self.cpu:7.1f} s of processors "
            f"{self.memory_mib:>5} MiB  {more}",
            flush=True,
        )


def main() -> None:
    """Measure and print. The lab hosts are up (Makefile)."""
    option = json.dumps(
        {
            "llm_overrides_fleet": {
                "providers": {
                    "llama_cpp_native": {
                        "models": [{"name": "llama-cpp-native", "options": {"threads": 1}}]
                    }
                }
            }
        }
    )
    with tempfile.TemporaryDirectory() as scratch:
        fleet = Fleet(Path(os.environ.get("FLEET", scratch), "fleet"))
        fleet.of(2, real=True)
        fleet.play("site.yml", "none")
        fleet.play("site.yml", "none")  # what the first run left may differ from what it noted
        fleet.play("site.yml", "same", keep=True)
        fleet.play("site.yml", "changed", "-e", option, keep=True)
        fleet.play("site.yml", "none")
        for size in SIZES:
            fleet.of(size, real=False)
            fleet.play("tests/benchmarks/fleet_seed.yml", "same")
            fleet.play("site.yml", "same").show("nothing to change", size, BUDGET.get(size))
            if size in CHANGED:
                fleet.play("site.yml", "changed", "-e", option).show("a model changes", size)
                fleet.of(2, real=True)
                fleet.play("site.yml", "none")
        fleet.of(COMPILED, real=False)
        fleet.play("playbooks/validate.yml", "none").show("compiled alone", COMPILED)


if __name__ == "__main__":
    main()
