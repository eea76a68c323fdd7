"""The shared base: hosts have their names, see each other, and were converged."""

from testinfra.host import Host


def test_host_is_a_healthy_systemd_machine(host: Host) -> None:
    assert host.check_output("systemctl is-system-running") == "running"


def test_converge_reached_the_right_host(host: Host) -> None:
    name = host.check_output("hostname")
    assert name in {"one", "two"}
    assert host.file("/etc/lab-scenario").content_string == f"{name}\n"


def test_hosts_reach_each_other_by_name(host: Host) -> None:
    other = {"one": "two", "two": "one"}[host.check_output("hostname")]
    assert host.run(f"timeout 5 bash -c 'exec 3<>/dev/tcp/{other}/22'").succeeded
