"""The exporters on a real host: what they tell, to whom, in which sandbox, and what ours sees when
something is wrong.

Redis, the exporters and the services are real. The servers of models are one stand-in
(files/models.py); nvidia-smi is a stand-in too, because no lab has a GPU.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from modelyard_playbook import ansible_playbook, said

KINDS = {
    "node": "127.0.0.1:9100",
    "redis": "[::1]:9121",
    "blackbox": "127.0.0.1:9115",
    "host": "127.0.0.1:9117",
}
SCORES = {"node": 1.4, "redis": 1.1, "blackbox": 1.1, "host": 1.6}
REDIS = "/etc/systemd/system/modelyard-redis.service"
# Waiting ends when what is waited for has come; the limit is only for a machine that is very slow.
PATIENCE_S = 120.0
# A real answer (github.com/utkuozdemir/nvidia_gpu_exporter, capture of an L40S, driver 595.80), our
# columns of it.
L40S = (
    "0, GPU-00000000-0000-0000-0000-000000000000, NVIDIA L40S, 00000000:01:00.0, 595.80, "
    "46068, 0, 100, 63, 144.97, 350.00, 0, 0"
)


def converge(**variables: Any) -> subprocess.CompletedProcess[str]:
    """Run the scenario's playbook with some variables changed."""
    return ansible_playbook("converge.yml", "-e", json.dumps(variables))


def scrape(host: Any, kind: str, path: str = "/metrics") -> dict[str, float]:
    """Return an exporter's answer, as {sample: value}."""
    text = host.check_output(f"curl -gsS --fail -m 60 {shlex.quote(f'http://{KINDS[kind]}{path}')}")
    samples = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def told(host: Any, name: str, /, **labels: str) -> float | None:
    """Return what our exporter says of a metric now."""
    shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return scrape(host, "host").get(f"modelyard_{name}{{{shown}}}")


def drift(host: Any) -> dict[str, float | None]:
    unit = {"service": "redis", "unit": "modelyard-redis.service"}
    return {
        what: told(host, "unit_drift", **unit, what=what) for what in ("unit", "process", "files")
    }


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that comes by itself."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.3)


def started(host: Any, unit: str) -> str:
    return str(host.check_output(f"systemctl show -p MainPID,ActiveEnterTimestampMonotonic {unit}"))


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_unit_runs_as_its_user_and_comes_back_at_boot(host: Any, kind: str) -> None:
    unit = f"modelyard-exporter@{kind}"
    service = host.service(unit)
    assert service.is_running
    assert service.is_enabled
    assert host.file(f"/etc/systemd/system/modelyard.target.wants/{unit}.service").exists
    pid = host.check_output(f"systemctl show --value -p MainPID {unit}")
    user = "modelyard-exporter-host" if kind == "host" else "modelyard-exporter"
    assert host.check_output(f"ps -o user:32= -p {pid}") == user


def test_sandbox_score(host: Any, kind: str) -> None:
    line = host.run(
        f"systemd-analyze security --no-pager modelyard-exporter@{kind} | tail -1"
    ).stdout
    assert float(line.split(":")[1].split()[0]) <= SCORES[kind], line


def test_stock_services_never_started(host: Any) -> None:
    for name in ("node", "redis", "blackbox"):
        service = host.service(f"prometheus-{name}-exporter")
        assert not service.is_running
        assert service.is_masked
    assert host.run("journalctl --no-pager -o cat -u 'prometheus-*-exporter'").stdout == ""


def test_listens_where_it_was_told(host: Any) -> None:
    sockets = host.check_output(
        "ss -Hltn 'sport = :9100 or sport = :9121 or sport = :9115 or sport = :9117'"
    )
    assert sorted(line.split()[3] for line in sockets.splitlines()) == sorted(KINDS.values())


def test_figures_are_as_prometheus_wants_them(host: Any, kind: str) -> None:
    """Its own tool finds nothing to complain about in what ours tells; what the others tell it has
    to understand."""
    done = host.run(f"curl -gsS --fail -m 60 http://{KINDS[kind]}/metrics | promtool check metrics")
    assert done.rc in ((0,) if kind == "host" else (0, 3)), done.stdout + done.stderr
    assert "error while linting" not in done.stdout + done.stderr


# Debian's exporters
# ------------------------------------------------------------------------------------------


def test_node_tells_of_the_host_and_not_of_its_sandbox(host: Any) -> None:
    samples = scrape(host, "node")
    root = {name: value for name, value in samples.items() if 'mountpoint="/"' in name}
    (available,) = (
        value for name, value in root.items() if name.startswith("node_filesystem_avail_bytes{")
    )
    (readonly,) = (
        value for name, value in root.items() if name.startswith("node_filesystem_readonly{")
    )
    (error,) = (
        value for name, value in root.items() if name.startswith("node_filesystem_device_error{")
    )
    assert available > 0
    assert (readonly, error) == (0, 0)
    assert samples["node_memory_MemTotal_bytes"] > 0
    for name in (
        "cpu",
        "diskstats",
        "filesystem",
        "loadavg",
        "meminfo",
        "netdev",
        "os",
        "stat",
        "uname",
        "vmstat",
    ):
        assert samples[f'node_scrape_collector_success{{collector="{name}"}}'] == 1, name


def test_redis_is_told_of(host: Any) -> None:
    samples = scrape(host, "redis")
    assert samples["redis_up"] == 1
    assert samples["redis_memory_max_bytes"] == 64 * 2**20
    for name in (
        "redis_evicted_keys_total",
        "redis_keyspace_hits_total",
        "redis_connected_clients",
    ):
        assert name in samples


def test_redis_that_is_gone_is_told(host: Any) -> None:
    host.check_output("systemctl stop modelyard-redis")
    try:
        assert scrape(host, "redis")["redis_up"] == 0
        assert told(host, "unit_active", service="redis", unit="modelyard-redis.service") == 0
    finally:
        host.check_output("systemctl start modelyard-redis")
    assert scrape(host, "redis")["redis_up"] == 1


@pytest.mark.parametrize(
    ("module", "path", "success"),
    [
        ("http_2xx", "/health", 1),
        ("http_2xx", "/v1/models", 0),
        ("http_2xx", "/nowhere", 0),
        ("http_401_is_up", "/v1/models", 1),
        ("http_401_is_up", "/health", 0),
        ("http_401_is_up", "/nowhere", 0),
    ],
)
def test_probing_addresses(host: Any, module: str, path: str, success: int) -> None:
    target = f"http://127.0.0.1:8900{path}"
    assert (
        scrape(host, "blackbox", f"/probe?module={module}&target={target}")["probe_success"]
        == success
    )


def test_probing_nobody(host: Any) -> None:
    assert (
        scrape(host, "blackbox", "/probe?module=http_2xx&target=http://127.0.0.1:8901/")[
            "probe_success"
        ]
        == 0
    )


# Our own
# ------------------------------------------------------------------------------------------


def test_every_service_is_told_of(host: Any, measured: Callable[[str], None]) -> None:
    begin = time.monotonic()
    samples = scrape(host, "host")
    measured(
        f"our exporter answered in {time.monotonic() - begin:.2f} s, SSH included, of five services"
    )
    assert samples['modelyard_exporter_part_up{part="services"}'] == 1
    for service in ("redis", *(f"exporter@{kind}" for kind in KINDS)):
        unit = f"modelyard-{service}.service"
        release = host.check_output(
            f"basename $(readlink /opt/modelyard/services/{service}/current)"
        )
        assert samples[f'modelyard_release_info{{service="{service}",release="{release}"}}'] == 1
        since = float(host.check_output(f"stat -c %Y /opt/modelyard/services/{service}/current"))
        assert (
            since
            <= samples[f'modelyard_release_live_since_seconds{{service="{service}"}}']
            < since + 1
        )
        assert samples[f'modelyard_activation_last_success{{service="{service}"}}'] == 1
        assert samples[f'modelyard_unit_active{{service="{service}",unit="{unit}"}}'] == 1
        for what in ("unit", "process", "files"):
            assert (
                samples[f'modelyard_unit_drift{{service="{service}",unit="{unit}",what="{what}"}}']
                == 0
            ), service


def test_what_was_edited_is_drift_until_the_next_run(host: Any) -> None:
    host.check_output(f"echo '# by hand' >> {REDIS}")
    assert drift(host) == {"unit": 1, "process": 0, "files": 0}
    host.check_output("echo '# by hand' >> /opt/modelyard/services/redis/current/config/redis.conf")
    assert drift(host) == {"unit": 1, "process": 0, "files": 1}
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr
    assert drift(host) == {"unit": 0, "process": 0, "files": 0}


def test_a_switch_that_was_interrupted_is_drift_until_the_next_run(host: Any) -> None:
    """The link names the new release already, the unit and the process are still those of the old
    one.

    The next run is that of test_an_activation_that_failed_is_told.
    """
    releases = "/opt/modelyard/services/redis"
    old = host.check_output(f"readlink {releases}/current")
    done = converge(maxmemory_mib=65)
    assert done.returncode == 0, done.stdout + done.stderr
    assert drift(host) == {"unit": 0, "process": 0, "files": 0}
    host.check_output(f"ln -sfn {old} {releases}/current")
    assert drift(host) == {"unit": 1, "process": 1, "files": 0}


def test_restarts_by_systemd_are_counted(host: Any) -> None:
    unit = {"service": "exporter@node", "unit": "modelyard-exporter@node.service"}
    before = told(host, "unit_restarts_total", **unit)
    assert before is not None
    host.check_output("systemctl kill --signal=KILL modelyard-exporter@node")
    wait_until(lambda: told(host, "unit_restarts_total", **unit) == before + 1)
    wait_until(lambda: told(host, "unit_active", **unit) == 1)


def test_an_activation_that_failed_is_told(host: Any) -> None:
    """The new release wants the port of another exporter, so it keeps exiting, and the former one
    is put back."""
    instances = host.ansible.get_variables()["instances"]
    node = next(instance for instance in instances if instance["kind"] == "node")
    release = host.check_output("readlink /opt/modelyard/services/exporter@node/current")
    bad = {**node, "port": 9115}
    done = converge(instances=[bad, *(one for one in instances if one is not node)])
    assert done.returncode != 0
    assert drift(host) == {
        "unit": 0,
        "process": 0,
        "files": 0,
    }, "of Redis, whose switch was interrupted"
    assert told(host, "activation_last_success", service="exporter@node") == 0
    assert told(host, "activation_last_success", service="redis") == 1
    assert host.check_output("readlink /opt/modelyard/services/exporter@node/current") == release
    assert scrape(host, "node")["node_time_seconds"] > 0


def test_models_are_asked_and_what_came_of_it_is_told(host: Any) -> None:
    good = {"service": "llama-cpp@good", "model": "good"}
    wait_until(
        lambda: told(host, "probe_skipped", service="ollama@local", model="cold") is not None
    )
    samples = scrape(host, "host")
    success = {
        name: value
        for name, value in samples.items()
        if name.startswith("modelyard_probe_success{")
    }
    assert success == {
        'modelyard_probe_success{service="llama-cpp@good",model="good"}': 1,
        'modelyard_probe_success{service="llama-cpp@broken",model="broken"}': 0,
        'modelyard_probe_success{service="llama-cpp@keyless",model="keyless"}': 0,
        'modelyard_probe_success{service="vllm@gone",model="gone"}': 0,
        'modelyard_probe_success{service="ollama@local",model="warm"}': 1,
    }
    skipped = {
        name
        for name, value in samples.items()
        if name.startswith("modelyard_probe_skipped{") and value
    }
    assert skipped == {'modelyard_probe_skipped{service="ollama@local",model="cold"}'}
    first = told(host, "probe_time_to_first_token_seconds", **good)
    assert first is not None
    assert first > 0
    assert samples['modelyard_exporter_part_up{part="probes"}'] == 1
    asked = set(host.check_output("cat /srv/asked.log").split())
    assert asked == {
        "good",
        "broken",
        "warm",
    }, "neither the cold model nor the one whose key was not given"
    # Again and again.
    began = told(host, "probe_timestamp_seconds", **good)
    wait_until(lambda: told(host, "probe_timestamp_seconds", **good) != began)


def test_keys_are_nowhere_but_in_their_credentials(host: Any) -> None:
    missed = "untold"
    places = {
        "unit files": "cat /etc/systemd/system/modelyard-*",
        "command lines": "cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
        "environments": "cat $(ls -d /proc/[0-9]*/environ) | tr '\\0' ' '",
        "journal": "journalctl --no-pager -o cat",
        "releases": "grep -ra . /opt/modelyard/services /var/lib/modelyard/activations",
        "metrics": (
            f"for at in {' '.join(KINDS.values())}; do curl -gsf http://$at/metrics || echo"
            f" {missed}; done"
        ),
    }
    # Written so that the search does not find itself.
    assert missed not in host.run(places["metrics"]).stdout
    search = "grep -aoE 'planted-(redis-passwor[d]|key-of-the-mode[l])' | wc -l"
    found = {
        place: host.run(f"({command}) 2>/dev/null | {search}").stdout.strip()
        for place, command in places.items()
    }
    assert found == dict.fromkeys(places, "0")
    control = "cat /etc/modelyard/credentials/exporter@*/current/[A-Z]*"
    assert host.run(f"{control} | {search}").stdout.strip() == "2"
    passwords = host.file("/run/modelyard-exporter-redis/passwords.json")
    assert (passwords.user, passwords.mode) == ("modelyard-exporter", 0o600)
    assert host.file("/run/modelyard-exporter-redis").mode == 0o700


def test_our_exporter_sees_what_it_tells_of_and_not_what_is_secret(host: Any) -> None:
    pid = host.check_output("systemctl show --value -p MainPID modelyard-exporter@host")
    root = f"/proc/{pid}/root"
    assert host.check_output(f"ls {root}/var/lib/modelyard") == "activations"
    for closed in ("/etc/modelyard/credentials", "/etc/ssh", "/root", "/home"):
        assert host.check_output(f"ls -A {root}{closed}") == "", closed
    assert host.check_output(f"stat -c %s {root}/etc/shadow") == "0"
    status = host.check_output(f"cat /proc/{pid}/status")
    # CAP_DAC_READ_SEARCH (2) and CAP_SYS_PTRACE (19), and no way to others.
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert re.search(rf"^{name}:\s+0000000000080004$", status, re.MULTILINE), status
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    filtered = host.check_output(
        "systemctl show --value -p SystemCallFilter modelyard-exporter@host"
    ).split()
    assert not {"ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"} & set(
        filtered
    )


def test_without_gpus_nothing_is_told_of_them(host: Any) -> None:
    assert not [name for name in scrape(host, "host") if "gpu" in name or "xid" in name]


def put_nvidia_smi(host: Any, script: str) -> None:
    """Make the stand-in for nvidia-smi a shell script."""
    path = "/usr/bin/nvidia-smi"
    text = f"#!/bin/sh\n# A stand-in.\n{script}\n"
    host.check_output(
        f"printf %s {shlex.quote(text)} > {path}.new && chmod 755 {path}.new && mv {path}.new"
        f" {path}"
    )


@pytest.fixture
def _nvidia_smi(host: Any) -> Iterator[None]:
    """Have a stand-in for nvidia-smi until the test ends, and the unit of a host with GPUs from now
    on."""
    put_nvidia_smi(host, f"echo '{L40S}'")
    done = converge()
    assert done.returncode == 0, done.stdout + done.stderr
    yield
    host.check_output("rm /usr/bin/nvidia-smi")


@pytest.mark.usefixtures("_nvidia_smi")
def test_on_a_host_with_gpus(host: Any) -> None:
    """nvidia-smi is a stand-in: it prints what a real one printed, then it hangs, then it fails."""
    unit = host.file("/etc/systemd/system/modelyard-exporter@host.service").content_string
    assert "DeviceAllow=char-nvidia* rw" in unit.splitlines()
    line = host.run("systemd-analyze security --no-pager modelyard-exporter@host | tail -1").stdout
    assert float(line.split(":")[1].split()[0]) <= 1.8, line
    gpu = {"index": "0", "uuid": "GPU-00000000-0000-0000-0000-000000000000", "name": "NVIDIA L40S"}
    assert told(host, "gpu_temperature_celsius", **gpu) == 63
    assert told(host, "gpu_memory_total_bytes", **gpu) == 46068 * 2**20
    # The kernel's log was read, and says nothing; the first scrape may have been quicker than the
    # list of GPUs.
    assert told(host, "gpu_xid_errors_total", **gpu) == 0
    assert told(host, "exporter_part_up", part="xids") == 1

    put_nvidia_smi(host, "exec sleep 3600")
    samples = scrape(host, "host")
    assert samples['modelyard_exporter_part_up{part="gpus"}'] == 0
    assert samples['modelyard_exporter_part_up{part="services"}'] == 1
    assert samples['modelyard_exporter_part_up{part="xids"}'] == 1
    assert not [name for name in samples if name.startswith("modelyard_gpu_temperature")]
    wait_until(lambda: host.run("pgrep -f 'sleep 360[0]'").stdout == "")

    def journal() -> str:
        return str(host.check_output("journalctl -u modelyard-exporter@host -o cat --no-pager"))

    # A slow machine may see the end of its patience with the part before that with the program.
    assert re.search("gpus: (nvidia-smi did not answer within 7 s|it hangs)", journal())
    put_nvidia_smi(host, "echo 'No devices were found'; exit 6")
    wait_until(
        lambda: (
            told(host, "exporter_part_up", part="gpus") == 0
            and "gpus: nvidia-smi: No devices were found (exit status 6)" in journal()
        )
    )
    put_nvidia_smi(host, f"echo '{L40S}'")
    wait_until(lambda: told(host, "exporter_part_up", part="gpus") == 1)


# Changes
# ------------------------------------------------------------------------------------------


@pytest.mark.full
def test_a_probe_without_a_proper_address_is_refused_and_changes_nothing(host: Any) -> None:
    units = [f"modelyard-exporter@{kind}" for kind in KINDS]
    before = [started(host, unit) for unit in units]
    done = converge(probe_url="file:///etc/passwd")
    assert done.returncode != 0
    message = "the probe of good has no address that begins with http://: file:///etc/passwd"
    assert message in said(done)
    assert [started(host, unit) for unit in units] == before


def test_exporters_that_are_no_longer_wanted_go(host: Any) -> None:
    """Comes last: nothing is brought back."""
    node = started(host, "modelyard-exporter@node")
    done = converge(wanted=["node", "blackbox", "host"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert started(host, "modelyard-exporter@node") == node
    assert not host.service("modelyard-exporter@redis").is_running
    for gone in (
        "/etc/systemd/system/modelyard-exporter@redis.service",
        "/opt/modelyard/services/exporter@redis/current",
        "/run/modelyard-exporter-redis",
    ):
        assert not host.file(gone).exists, gone
    assert (
        told(host, "unit_active", service="exporter@redis", unit="modelyard-exporter@redis.service")
        is None
    )
    done = converge(wanted=[])
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.run("systemctl is-active 'modelyard-exporter@*'").stdout == ""
    assert host.service("modelyard-redis").is_running
