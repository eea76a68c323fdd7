"""Hosts that are not the machines the inventory takes them for, and where things listen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from catalogues import CATALOGUE, ROOT, change, compiled, inventory, load, places, refused
from test_document import ADDRESSES, FLEET

from modelyard.addresses import flaw, same, unbindable
from modelyard.catalogue.sourcemap import Bounds, Origin
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.inventory import Host, Inventory
from modelyard.compiler.listeners import MAY_BIND


def fleet(text: str = CATALOGUE, own: frozenset[str] = frozenset(), **hosts: Any) -> Inventory:
    """Two gateways and two GPU hosts, with other values for some `hosts`."""
    given = inventory(text, groups=FLEET, addresses=ADDRESSES)
    changed = {name: replace(host, **hosts.get(name, {})) for name, host in given.hosts.items()}
    return replace(given, hosts=changed, own_addresses=own)


def told(result: Compiled, code: str) -> list[str]:
    return [one.message for one in result.diagnostics if one.code == code]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("10.0.0.1", ""),
        ("10.0.0.255", ""),
        ("169.254.3.4", ""),
        ("2001:db8::1", ""),
        ("fd00::1", ""),
        ("gpu.example.org", "not an IP address"),
        ("10.0.0.1:22", "not an IP address"),
        ("127.3.2.1", "a loopback address"),
        ("::1", "a loopback address"),
        ("0.0.0.0", "the unspecified address"),
        ("::", "the unspecified address"),
        ("224.0.0.251", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "the broadcast address"),
        ("0.1.2.3", "a reserved address"),
        ("240.0.0.1", "a reserved address"),
        ("fe80::1", "a link-local address"),
        ("fe80::1%eth0", "a link-local address"),
        ("2001:db8::1%eth0", "an address with a zone"),
        ("::ffff:10.0.0.1", "an IPv4 address in IPv6 notation: write 10.0.0.1"),
    ],
)
def test_addresses_of_a_host(address: str, why: str) -> None:
    assert flaw(address) == why
    result = compiled(llm_address=address)
    if not why:
        assert result.errors == []
    else:
        assert f"is {why}" in refused(result, "address-unusable", None)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "0.0.0.0", "::", "::1", "10.0.0.1", "169.254.3.4", "2001:db8::1"]
)
def test_addresses_to_listen_on(address: str) -> None:
    assert unbindable(address) == ""
    text = change("  port: 4000\n", f'  port: 4000\n  listen: ["{address}"]\n')
    assert compiled(text).errors == []


@pytest.mark.parametrize(
    "address", ["224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1", "fe80::1%eth0", "0.0.0.7"]
)
def test_addresses_nothing_can_listen_on(address: str) -> None:
    text = change("  port: 4000\n", f'  port: 4000\n  listen:\n    - "{address}"\n')
    result = compiled(text)
    assert [one.code for one in result.errors] == ["invalid-value"]
    assert f"no service can listen on {address}" in result.errors[0].message


def test_two_hosts_with_one_address() -> None:
    assert compile_inventory(fleet()).errors == []
    twice = fleet(gpu1={"address": ADDRESSES["gw1"], "address_origin": Origin("hosts.yml", 9, 30)})
    message = refused(compile_inventory(twice), "duplicate-address", 9)
    assert f"have the same address, {ADDRESSES['gw1']}" in message
    assert "at: ansible_host" in message


def test_one_address_in_two_notations() -> None:
    assert same("2001:DB8:0::21") == same("2001:db8::21")
    addresses = {name: f"2001:db8::{number}" for number, name in enumerate(ADDRESSES, 1)}
    given = inventory(groups=FLEET, addresses={**addresses, "gpu1": "2001:DB8:0:0::1"})
    assert told(compile_inventory(given), "duplicate-address")


def test_llm_address_of_a_group() -> None:
    address = load("llm_address: 10.0.0.77", "group_vars/llm_ollama.yml")["llm_address"]
    given = fleet()
    mine = {**given.hosts["gpu1"].variables, "llm_address": address}
    result = compile_inventory(fleet(gpu1={"variables": mine}, gpu2={"variables": mine}))
    message = refused(result, "duplicate-address", 1)
    assert message.startswith("group_vars/llm_ollama.yml:1:14: ")
    assert "set llm_address for each host, not for a group of them" in message


def test_llm_address_that_ansible_reaches_another_host_at() -> None:
    mine = {**fleet().hosts["gpu1"].variables, "llm_address": ADDRESSES["gw1"]}
    taken = {**fleet().hosts["gw1"].variables, "llm_address": "10.9.9.9"}
    result = compile_inventory(fleet(gpu1={"variables": mine}, gw1={"variables": taken}))
    assert [one.code for one in result.errors] == ["duplicate-address"]


def test_one_address_with_several_ports_leads_to_several_hosts() -> None:
    variables = fleet().hosts["gw1"].variables
    hosts = {
        name: {
            "address": "203.0.113.1",
            "way": f"ssh {2200 + number}",
            "variables": {**variables, "llm_address": f"10.0.0.{number}"},
        }
        for number, name in enumerate(ADDRESSES, 1)
    }
    assert compile_inventory(fleet(**hosts)).errors == []
    same_port = {name: {**host, "way": "ssh 2200"} for name, host in hosts.items()}
    assert told(compile_inventory(fleet(**same_port)), "duplicate-address")


def test_a_name_that_stands_for_no_machine_may_be_shared() -> None:
    hosts = {name: {"address": "the-lab-is-down.invalid"} for name in ADDRESSES}
    assert told(compile_inventory(fleet(**hosts)), "duplicate-address") == []
    hosts = {name: {"address": "gpu.example.org"} for name in ADDRESSES}
    assert told(compile_inventory(fleet(**hosts)), "duplicate-address")


def test_connection_local_for_other_machines() -> None:
    place = Origin("hosts.yml", 12, 34)
    local = {name: {"local": True, "local_origin": place} for name in ADDRESSES}
    message = refused(compile_inventory(fleet(**local)), "connection-local", 12)
    assert "would be this machine" in message
    assert all(address in message for address in ADDRESSES.values())
    one = compile_inventory(fleet(gpu1={"local": True}))
    assert "gpu1 would be this machine" in refused(one, "connection-local", None)
    own = frozenset({ADDRESSES["gpu1"]})
    assert compile_inventory(fleet(own=own, gpu1={"local": True})).errors == []


def alone(host: Host, own: frozenset[str] = frozenset()) -> Compiled:
    given = inventory()
    host = replace(host, variables={**given.hosts["one"].variables, **host.variables})
    return compile_inventory(replace(given, hosts={"one": host}, own_addresses=own))


def test_connection_local_for_this_machine() -> None:
    """Its name says nothing, unless it is an address."""
    assert alone(Host({}, "one", local=True)).errors == []
    own = frozenset({"127.0.0.1", "10.0.0.5"})
    assert alone(Host({}, "127.0.0.1", local=True), own).errors == []
    assert alone(Host({"llm_address": "10.0.0.5"}, "one", local=True), own).errors == []
    refused(
        alone(Host({"llm_address": "10.0.0.6"}, "one", local=True), own), "connection-local", None
    )
    refused(alone(Host({}, "10.0.0.6", local=True), own), "connection-local", None)


def test_localhost_keeps_its_llm_address() -> None:
    """Whatever address it has today, it is the machine that is meant."""
    groups = {
        group: ["localhost"] for group in ("llm_stack", "llm_gateway", "llm_redis", "llm_local")
    }
    given = inventory(groups=groups, llm_address="10.0.0.5")
    hosts = {"localhost": replace(given.hosts["localhost"], local=True)}
    result = compile_inventory(replace(given, hosts=hosts))
    assert result.errors == []
    assert [one.code for one in result.warnings] == ["connection-local"]


def test_two_hosts_that_are_both_this_machine() -> None:
    groups = {**FLEET, "llm_stack": ["localhost", "localhots"], "llm_gateway": ["localhost"],
              "llm_redis": ["localhost"], "llm_monitoring": [], "llm_local": ["localhots"]}  # fmt: skip
    given = inventory(groups=groups)
    hosts = {name: replace(host, local=True) for name, host in given.hosts.items()}
    result = compile_inventory(replace(given, hosts=hosts))
    first, *_rest = result.errors
    assert first.code == "connection-local"
    assert "localhost and localhots would all be this machine" in first.message
    assert 'did you mean "localhost"? If not' in first.hint


def test_this_machine_and_the_same_address_by_ssh() -> None:
    """Two networks may have one address each; nothing is certain."""
    own = frozenset({ADDRESSES["gpu2"]})
    result = compile_inventory(fleet(own=own, gw1={"local": True, "address": ADDRESSES["gpu2"]}))
    assert told(result, "connection-local") == []


def test_mixed_families() -> None:
    result = compile_inventory(
        fleet(gpu1={"address": "2001:db8::21", "address_origin": Origin("hosts.yml", 9, 30)})
    )
    message = refused(result, "address-unusable", 9)
    assert "gpu1 has an IPv6 address and gw1 an IPv4 address" in message
    assert "set llm_address of gpu1 to its IPv4 address" in message
    six = {name: {"address": f"2001:db8::{n}"} for n, name in enumerate(ADDRESSES, 1)}
    assert compile_inventory(fleet(**six)).errors == []
    four = {**six, "gw1": {}}
    assert "set llm_address of gw1 to its IPv6 address" in refused(
        compile_inventory(fleet(**four)), "address-unusable", None
    )


def test_host_that_is_misspelt_in_a_group() -> None:
    """Nothing is said of it, and a host of nearly that name is not in its group."""
    groups = {**FLEET, "llm_stack": [*FLEET["llm_stack"], "gpu11"], "llm_local": ["gpu11"]}
    given = inventory(groups=groups, addresses=ADDRESSES)
    hosts = {**given.hosts}
    hosts["gpu11"] = replace(hosts["gpu11"], origin=Origin("hosts.yml", 16, 30))
    message = refused(compile_inventory(replace(given, hosts=hosts)), "address-unusable", 16)
    assert 'did you mean "gpu1"? If not, set llm_address for gpu11' in message


def test_new_host_is_not_taken_for_its_neighbours() -> None:
    groups = {**FLEET, "llm_stack": [*FLEET["llm_stack"], "gpu3"],
              "llm_local": [*FLEET["llm_local"], "gpu3"]}  # fmt: skip
    message = compiled(groups=groups, addresses=ADDRESSES).errors[0].hint
    assert message == "set llm_address for gpu3 in the inventory"


@pytest.mark.parametrize("group", ["llm_gateway", "llm_redis", "llm_monitoring", "llm_local"])
def test_group_outside_the_stack(group: str) -> None:
    groups = {**FLEET, group: ["stray"]}
    given = inventory(groups=groups, addresses=ADDRESSES, llm_monitoring={})
    given = replace(given, group_origins={group: Origin("hosts.yml", 3, 5)})
    result = compile_inventory(given)
    assert ("host-outside-stack", 3) in places(result)
    assert {one.code for one in result.errors} == {"host-outside-stack"}


def listening(*addresses: str, **arguments: Any) -> Compiled:
    listed = ", ".join(f'"{address}"' for address in addresses)
    text = change("  port: 4000\n", f"  port: 4000\n  listen: [{listed}]\n")
    return compile_inventory(fleet(text, **arguments))


def test_listen_on_the_address_of_another_host() -> None:
    one, two = (ADDRESSES[name] for name in ("gw1", "gw2"))
    result = listening(one, two)
    assert [error.code for error in result.errors] == ["listen-address", "listen-address"]
    assert result.errors[0].message == (
        f"{one} is the address of gw1: the front end of gw2 cannot listen on it"
    )
    assert result.errors[0].path == ("llm_gateway", "listen", 0)
    assert listening(ADDRESSES["gpu1"]).errors[0].code == "listen-address"
    assert listening("0.0.0.0").diagnostics == listening("::").diagnostics


def test_listen_of_one_gateway_on_another_address_of_its_own() -> None:
    text = change("  port: 4000\n", '  port: 4000\n  listen: ["192.0.2.99"]\n')
    assert told(compiled(text), "listen-address") == []


def test_one_address_for_two_gateways_may_move_between_them() -> None:
    assert listening("10.0.0.99").errors == []
    assert "at a time" in told(listening("10.0.0.99"), "listen-address")[0]


def test_two_gateways_on_loopback() -> None:
    assert "no other host reaches them" in told(listening("127.0.0.1"), "listen-address")[0]
    assert told(listening("0.0.0.0"), "listen-address") == []
    assert told(compiled(), "listen-address") == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "ollama.localhost"])
def test_provider_on_loopback(host: str) -> None:
    text = change("https://api.example.org/v1", f"http://{host}:1234/v1")
    assert "gw1, gw2" in told(compile_inventory(fleet(text)), "loopback-provider")[0]
    assert told(compiled(text), "loopback-provider") == []
    assert told(compile_inventory(fleet()), "loopback-provider") == []


def test_ports_that_a_service_may_not_bind() -> None:
    for line, port in (("    port: 8080\n", 80), ("        port: 8081\n", 1023)):
        text = change(line, f"{line.partition(':')[0]}: {port}\n")
        assert "choose a port from 1024 on" in refused(
            compiled(text), "port-privileged", 5 if port == 80 else 11
        )
    text = change("  port: 4000\n", "  port: 443\n")
    assert compiled(text).errors == []
    text = change("  port: 4000\n", "  slots: {blue: 81}\n")
    refused(compiled(text), "port-privileged", 24)
    text = change("  port: 4000\n", "  redis: {port: 637}\n")
    refused(compiled(text), "port-privileged", 24)
    assert compiled(text, groups={"llm_redis": []}).errors == []


def test_units_that_may_bind_any_port() -> None:
    templates = [*ROOT.glob("roles/*/templates/*.service.j2")]
    able = [
        path.parts[-3]
        for path in templates
        if "CAP_NET_BIND_SERVICE" in path.read_text(encoding="utf-8")
    ]
    assert sorted(set(able)) == sorted(MAY_BIND)


def test_a_value_without_end() -> None:
    loop: dict[str, Any] = {"x": {}}
    loop["x"]["y"] = [loop]
    assert Bounds().flaw(loop) == (
        "it contains itself (the anchor & is around the alias *)", ("x", "y", 0)
    )  # fmt: skip
    wide: Any = ["x"] * 10
    for _ in range(9):
        wide = [wide] * 10
    assert "more than 5,000,000 values" in (Bounds().flaw(wide) or ("",))[0]
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert "levels deep" in (Bounds().flaw(deep) or ("",))[0]
    shared = {"a": 1}
    assert Bounds().flaw({"one": shared, "two": [shared, shared]}) is None


def test_hosts_whose_variable_has_no_end() -> None:
    endless = {"llm_overrides": ("it contains itself", ("providers",), Origin("llm.yml", 2, 3))}
    result = compile_inventory(fleet(gw1={"endless": endless}, gpu1={"endless": endless}))
    message = refused(result, "unreadable-variable", 2)
    assert "llm_overrides cannot be read for gw1, gpu1: it contains itself" in message
    assert "at: llm_overrides.providers" in message


def test_several_hosts_that_are_all_this_machine() -> None:
    """Told once; none of them was meant by another."""
    local = {name: {"local": True, "address": name} for name in ADDRESSES}
    result = compile_inventory(fleet(**local))
    assert told(result, "connection-local") == [
        "gw1 and gw2, gpu1, gpu2 would all be this machine (ansible_connection: local)"
    ]
    assert result.errors[0].hint.startswith("set ansible_connection: ssh for gw2, gpu1, gpu2, or")


def test_the_address_that_was_written_a_second_time() -> None:
    address = load(f"llm_address: {ADDRESSES['gpu2']}", "host_vars/gpu1.yml")["llm_address"]
    mine = {**fleet().hosts["gpu1"].variables, "llm_address": address}
    place = {"address_origin": Origin("hosts.yml", 10, 30)}
    message = refused(
        compile_inventory(fleet(gpu1={"variables": mine}, gpu2=place)), "duplicate-address", 1
    )
    assert message.startswith("host_vars/gpu1.yml:1:14: ")
    assert "gpu1 (host_vars/gpu1.yml:1:14), gpu2 (hosts.yml:10:30) have" in message


def test_copies_and_idle_groups() -> None:
    groups = {**FLEET, "llm_tgi": ["gpu1"], "llm_staging": ["web1"], "llm_24g": ["gpu1"]}
    given = replace(
        inventory(groups=groups, addresses=ADDRESSES),
        backups=[Origin("hosts.old.yml")],
        idle_groups=frozenset({"llm_tgi", "llm_staging"}),
    )
    result = compile_inventory(given)
    assert result.errors == []
    assert told(result, "backup-read") != []
    assert told(result, "unknown-group") == ["no provider names group llm_tgi"]
