"""What `site.yml` costs on a host that has every role: the first run, a run that changes nothing,
and a second host.

On lab hosts of its own, with the real servers and tiny models of `inventories/lab-engines`. The run
that changes nothing stands beside the same run with every role (`llm_full=true`), and that beside a
play of as many tasks that each run `true`: what plain Ansible needs for so many. Run by `make
bench`. No test: a benchmark compares and prints, it does not pass or fail.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

CLONE = Path(__file__).resolve().parents[2]
ENGINES = CLONE / "inventories/lab-engines"
GROUPS = yaml.safe_load((ENGINES / "hosts.yml").read_text(encoding="utf-8"))["all"]["children"][
    "llm_stack"
]
NATIVE = "llm_llama_cpp_native"
NO_CHANGE_BUDGET_S = 5
FULL_BUDGET_S = 25
COPY_BUDGET_S = 15
ROUNDS = 3

os.environ["MODELYARD_LAB"] = "bench"


def inventory(home: Path, *native: str) -> Path:
    """Write the inventory of `make engines` with everything on the host `one`, and llama.cpp on
    others, too."""
    home.mkdir(exist_ok=True)
    children = {group: {"hosts": {"one": None}} for group in GROUPS["children"]}
    children[NATIVE]["hosts"] |= dict.fromkeys(native)
    hosts = {"all": {"children": {"llm_stack": {"children": children, "vars": GROUPS["vars"]}}}}
    (home / "hosts.yml").write_text(yaml.safe_dump(hosts), encoding="utf-8")
    if not (home / "group_vars").exists():
        (home / "group_vars").symlink_to(ENGINES / "group_vars")
        (home / "running.sh").write_text(
            f'#!/bin/sh\nexec {CLONE}/lab/lab inventory "$@"\n', encoding="utf-8"
        )
        (home / "running.sh").chmod(0o755)
    return home


def play(*arguments: str | Path) -> tuple[float, str]:
    """Run `ansible-playbook`; returns the seconds and what was printed. Ends the benchmark where it
    fails."""
    started = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", *arguments], cwd=CLONE, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return time.monotonic() - started, done.stdout


def recap(output: str, host: str, what: str) -> int:
    """Return a number from the line of a host in the summary: ok, changed, skipped."""
    line = next(
        line
        for line in output.partition("PLAY RECAP")[2].splitlines()
        if line.split(" ")[0] == host
    )
    return int(re.findall(rf"{what}=(\d+)", line)[0])


def tasks_that_do_nothing(home: Path, count: int) -> Path:
    """Write a playbook of so many tasks that run `true` on the host."""
    path = home / "nothing.yml"
    tasks = [
        {"name": f"Task {number}", "ansible.builtin.command": "true"} for number in range(count)
    ]
    path.write_text(
        yaml.safe_dump([{"hosts": "one", "become": True, "gather_facts": False, "tasks": tasks}]),
        encoding="utf-8",
    )
    return path


def row(what: str, seconds: float, more: str = "", budget: float | None = None) -> None:
    """Print one figure, and whether it is within its budget."""
    if budget is not None:
        more += f"; budget {budget:.0f} s: {'met' if seconds < budget else 'MISSED'}"
    print(f"{what:<42} {seconds:6.1f} s  {more}", flush=True)


def main() -> None:
    """Measure and print. Hosts `one` and `two` are up (Makefile)."""
    with tempfile.TemporaryDirectory() as scratch:
        home = inventory(Path(scratch, "bench"))
        first, output = play("site.yml", "-i", home)
        row(
            "first run, every role on one host", first, f"{recap(output, 'one', 'changed')} changed"
        )
        play("site.yml", "-i", home)  # what is loaded may not be what the first run noted
        again, full, nothing, changed = [], [], [], 0
        for _ in range(ROUNDS):
            seconds, output = play("site.yml", "-i", home)
            again.append(seconds)
            asked = recap(output, "one", "ok")
            changed += recap(output, "one", "changed")
            seconds, output = play("site.yml", "-i", home, "-e", "llm_full=true")
            full.append(seconds)
            changed += recap(output, "one", "changed")
            count = recap(output, "one", "ok")
            nothing.append(play(tasks_that_do_nothing(Path(scratch), count), "-i", home)[0])
        more = f"{changed} changed in {2 * ROUNDS} runs, {asked} tasks"
        row("run that changes nothing", statistics.median(again), more, NO_CHANGE_BUDGET_S)
        row("the same with every role", statistics.median(full), f"{count} tasks", FULL_BUDGET_S)
        row("as many tasks that only run `true`", statistics.median(nothing))

        seconds, output = play("site.yml", "-i", inventory(home, "two"), "-v")
        task = output.partition("[llama_cpp : Install llama.cpp's server into the store]")[
            2
        ].partition("\nTASK [")[0]
        copied = float(re.findall(r"\[two\].*?seconds: ([\d.]+)", task, re.S)[0])
        row("llama.cpp on a second host", copied, build_time(), COPY_BUDGET_S)
        row(
            "that run, packages and all, both hosts",
            seconds,
            f"{recap(output, 'two', 'changed')} changed there",
        )


def build_time() -> str:
    """Return what the log of the build says of it, which a copy has from where it was built."""
    shown = [
        "lab/lab",
        "ssh",
        "two",
        "grep -h 'built in' /opt/modelyard/store/llama-cpp-*/build.log",
    ]
    return subprocess.run(
        shown, cwd=CLONE, capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
