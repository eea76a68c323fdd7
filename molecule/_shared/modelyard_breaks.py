"""Ways in which a host stops being as planned, and what site.yml has to make of each: the run that
asks first must find what the full run finds.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

Site = Callable[..., "subprocess.CompletedProcess[str]"]

OURS = "/opt/modelyard"
SERVICES = f"{OURS}/services"
UNITS = "/etc/systemd/system"
SECRETS = "/etc/modelyard/credentials"
STATE = "/var/lib/modelyard"
RECORDS = f"{OURS}/roles"

BREAKS = {
    "a configuration is edited": f"echo '# mine' >> {SERVICES}/redis/current/config/redis.conf",
    "a unit is edited": f"echo '# mine' >> {UNITS}/modelyard-haproxy.service",
    "a unit is deleted": f"rm {UNITS}/modelyard-redis.service && systemctl daemon-reload",
    "a unit is overridden until the next boot": (
        "d=/run/systemd/system.control; mkdir -p $d;"
        f" (cat {UNITS}/modelyard-redis.service; echo '# mine') > $d/modelyard-redis.service"
    ),
    "a service is stopped": "systemctl stop modelyard-redis.service",
    "a service is disabled": "systemctl disable modelyard-haproxy.service",
    "the gateway is stopped": "systemctl stop 'modelyard-litellm@*'",
    "an engine is stopped": "systemctl stop 'modelyard-llama-cpp@*'",
    "a credential is deleted": f"rm {SECRETS}/redis/$(readlink {SECRETS}/redis/staged)/GATEWAY*",
    "a credential is edited": (
        f"echo other > {SECRETS}/litellm/$(readlink {SECRETS}/litellm/staged)/LITELLM_MASTER_KEY"
    ),
    "a file is among the credentials": (
        f"touch {SECRETS}/redis/$(readlink {SECRETS}/redis/staged)/MINE"
    ),
    "the clients' file is open": f"chmod 0644 {STATE}/litellm/clients.json",
    "the clients' file is deleted": f"rm {STATE}/litellm/clients.json",
    "a package is removed": "apt-get -qq remove -y redis-server redis-tools",
    "the unpacker is removed": "apt-get -qq remove -y zstd",
    "a user has a shell": "usermod -s /bin/bash modelyard-haproxy",
    "an artifact is not whole": f"rm {OURS}/store/llama-cpp-*/.modelyard-complete",
    "a release waits": f"rm {SERVICES}/redis/staged",
    "a restart is due": f"touch {SERVICES}/haproxy/current/.restart",
    "a manifest is edited": (
        f'sed -i \'s/"ready_timeout_s": 30/"ready_timeout_s": 31/\''
        f" {SERVICES}/redis/current/manifest.json"
    ),
    "the target is gone": f"rm {UNITS}/modelyard.target && systemctl daemon-reload",
    "the credentials are open": f"chmod 0755 {SECRETS}",
    "a service is left over": (
        f"cp -a {SERVICES}/redis '{SERVICES}/exporter@old' &&"
        f" cp {UNITS}/modelyard-redis.service '{UNITS}/modelyard-exporter@old.service'"
    ),
    "a role's record is of other code": (
        f'sed -i \'s/"digest": "..../"digest": "ffff/\' {RECORDS}/redis.json'
    ),
    "a role's record is damaged": f"echo '{{' > {RECORDS}/haproxy.json",
}
"""Shell commands on a host with the gateway, Redis and llama.cpp's server, by what they do."""

MORE = {
    "a model of Ollama is deleted": (
        f"rm -r {STATE}/ollama/*/models/manifests/registry.ollama.ai/library/llama3.1"
    ),
    "the command of Ollama is deleted": "rm /usr/local/bin/ollama",
    "an exporter is removed": "apt-get -qq remove -y prometheus-node-exporter",
    "Prometheus is stopped": "systemctl stop modelyard-prometheus.service",
    "the firewall is stopped": "systemctl stop modelyard-firewall.service",
    "rules are edited": f"echo >> {SERVICES}/prometheus/current/config/rules/engines.yml",
}
"""The same on a host that has these, too."""


def changed(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the tasks that a run says it changed, or would change, in their order.

    The names of roles are left out: an included role is named after another in some versions.
    """
    assert done.returncode == 0, done.stdout + done.stderr
    found = []
    for task in re.split(r"^TASK |^RUNNING HANDLER ", done.stdout, flags=re.MULTILINE)[1:]:
        name = task.partition("]")[0].lstrip("[")
        found += [name] * len(re.findall(r"^changed: \[", task, re.MULTILINE))
    return found


def judge(shell: Callable[[str], object], site: Site, command: str) -> Sequence[str]:
    """Break a host, and repair it by the run that asks first. Returns what that run changed.

    Raises AssertionError if the full run would have changed something else.
    """
    shell(command)
    full = changed(site("--check", "-e", "llm_full=true"))
    asked = changed(site("--check"))
    assert asked == full, f"asked first: {asked}; in full: {full}"
    repaired = changed(site())
    assert bool(repaired) == bool(full), f"it would have changed {full}, and did {repaired}"
    return repaired
