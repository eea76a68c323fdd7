"""Which of two places is named: the one that the user wrote, with a hint that fits it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from catalogues import CATALOGUE, GROUPS, change, compiled, inventory, load

from modelyard.compile import compile_inventory

WATCHED = "llm_monitoring:\n  exporters: {node: 9100}\n  grafana: {port: 3000}\n"


def clash(text: str, override: str) -> tuple[str, str, str]:
    """Return where the only clash is, its path and its hint."""
    groups = {**GROUPS, "llm_monitoring": ["one"]}
    over = load(override, "mine.yml")
    result = compile_inventory(inventory(text, groups=groups, llm_overrides=over))
    (one,) = [one for one in result.errors if one.code == "port-clash"]
    return str(one.origin), one.as_dict()["path"], one.hint


MODEL = "; a model of llama_cpp or vllm can have its own port"


@pytest.mark.parametrize(
    ("override", "place", "path", "what", "more"),
    [
        ("gateway:\n  slots: {blue: 4000}", "2:17", "gateway.slots.blue", "gateway slot blue", "4001"),
        ("gateway:\n  redis: {port: 4002}", "2:17", "gateway.redis.port", "redis", "4004"),
        ("gateway:\n  slots: {blue: 4010}\n  redis: {port: 4002}", "3:17", "gateway.redis.port", "redis", "4004"),
        ("gateway:\n  port: 9100", "2:9", "gateway.port", "the front end", "9101"),
        ("gateway:\n  port: 4001", "2:9", "gateway.port", "the front end", "4004"),
        ("gateway:\n  port: 8081", "2:9", "gateway.port", "the front end", f"8082{MODEL}"),
        ("monitoring:\n  exporters: {redis: 9100}", "2:22", "monitoring.exporters.redis",
         "the exporter of redis", "9101"),
        ("monitoring:\n  prometheus: {port: 6379}", "2:22", "monitoring.prometheus.port", "prometheus", "6380"),
        ("providers:\n  local: {port: 4001}", "2:17", "providers.local.port", '"small"', f"4004{MODEL}"),
    ],
)  # fmt: skip
def test_a_clash_names_the_users_own_line(
    override: str, place: str, path: str, what: str, more: str
) -> None:
    assert clash(CATALOGUE + WATCHED, override) == (
        f"mine.yml:{place}",
        f"llm_{path}",
        f"give {what} another port, such as {more}",
    )


def test_a_clash_with_a_default_names_the_line_that_is_there() -> None:
    text = change("port: 4000", "slots: {green: 4000}")
    assert clash(text, "{}")[:2] == ("llm.yml:24:18", "llm_gateway.slots.green")


def test_the_free_port_that_a_hint_names_is_free_on_every_host() -> None:
    groups = {"llm_stack": ["one", "two"], "llm_gateway": ["one", "two"], "llm_local": ["two"]}
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    text = change("port: 4000", "port: 4000\n  slots: {blue: 4000}", change("8081", "4001"))
    result = compile_inventory(inventory(text, groups=groups, addresses=addresses))
    (hint,) = [one.hint for one in result.errors if one.code == "port-clash"]
    assert hint == "give the front end another port, such as 4004"


def test_two_clashes_get_two_free_ports() -> None:
    text = change("port: 4000", "port: 4000\n  slots: {blue: 4000, green: 8080}")
    told = [one for one in compiled(text).errors if one.code == "port-clash"]
    offered = [one.hint.partition("such as ")[2].partition(";")[0] for one in told]
    assert len(told) == len({*offered}) == 2
    text = change("port: 4000", "port: 4000\n  slots: {blue: 4000, green: 4000}")
    told = [one for one in compiled(text).errors if one.code == "port-clash"]
    assert [one.hint.rpartition(" ")[2] for one in told] == ["4001", "4002"]


@pytest.mark.parametrize(
    ("port", "way", "address", "local", "refused"),
    [
        (22, "ssh 22", "192.0.2.1", False, True),
        (2222, "ssh 2222", "192.0.2.1", False, True),
        (2222, "ssh 22", "192.0.2.1", False, False),
        (22, "ssh 2222", "192.0.2.1", False, False),
        (22, "local 22", "192.0.2.1", True, False),
        (2222, "ssh 2222", "127.0.0.1", False, False),  # Forwarded to a virtual machine.
        (22, "community.docker.docker 22", "one", False, False),
    ],
)
def test_a_port_that_sshd_holds(
    port: int, way: str, address: str, local: bool, refused: bool
) -> None:
    given = inventory(change("port: 4000", f"port: {port}"))
    host = replace(given.hosts["one"], way=way, address=address, local=local)
    errors = compile_inventory(replace(given, hosts={"one": host})).errors
    told = [str(one.origin) for one in errors if one.code == "port-clash"]
    assert told == ["llm.yml:24:9"] * refused


def test_a_build_for_gpus_on_a_host_without_names_the_hosts_line() -> None:
    text = change('    version: "0.3.36"\n', '    version: "0.3.36"\n    backend: cuda\n')
    found = inventory(text)
    mine = load("llm_gpus: []", "host_vars/one.yml")
    hosts = {"one": replace(found.hosts["one"], variables={**found.hosts["one"].variables, **mine})}
    errors = compile_inventory(replace(found, hosts=hosts)).errors
    assert [(one.code, str(one.origin)) for one in errors] == [
        ("unknown-gpu", "host_vars/one.yml:1:11")
    ]


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("gpu", "one of auto, cuda, cpu"),
        ("nvidia", "one of auto, cuda, cpu"),
        ("rocm", "one of auto, cuda, cpu"),
        ("npu", "one of auto, cuda, cpu"),
        ("cud", 'did you mean "cuda"?'),
        ("CUDA", 'did you mean "cuda"?'),
        ("auot", 'did you mean "auto"?'),
    ],
)
def test_another_value_is_offered_only_for_a_misspelling(given: str, hint: str) -> None:
    text = change('    version: "0.3.36"\n', f'    version: "0.3.36"\n    backend: {given}\n')
    assert [one.hint for one in compiled(text).errors if one.code == "unknown-value"] == [hint]


@pytest.mark.parametrize("given", ["inactive", "enabled", "off", "paused"])
def test_an_opposite_is_no_misspelling(given: str) -> None:
    text = change("    type: openai\n", f"    type: openai\n    status: {given}\n")
    told = [one.hint for one in compiled(text).errors if one.code == "unknown-value"]
    assert told == ["one of active, disabled"]


@pytest.mark.parametrize("name", ["llm-gateway", "LLM_Gateway", "llm_gatway"])
def test_only_a_misspelt_group_is_to_be_renamed(name: str) -> None:
    groups = {"llm_stack": ["one"], "llm_local": ["one"], name: ["one"]}
    result = compile_inventory(replace(inventory(), groups=groups))
    told = {one.code: one.hint for one in result.errors}
    assert told["no-gateway"] == f"rename group {name} to llm_gateway"
    without = {"llm_stack": ["one"], "llm_local": ["one"], "llm_gateways_eu": []}
    result = compile_inventory(replace(inventory(), groups=without))
    told = {one.code: one.hint for one in result.errors}
    assert told["no-gateway"] == "put at least one host into it"


@pytest.mark.parametrize(
    ("address", "hint"),
    [
        ("10.20.0.21:2222", "write ansible_host: 10.20.0.21, and ansible_port: 2222"),
        ("gpu1.example.org:22", "write ansible_host: gpu1.example.org, and ansible_port: 22"),
        ("[2001:db8::1]:22", "write ansible_host: 2001:db8::1, and ansible_port: 22"),
        ("root@10.20.0.21", "write what is behind the @, and what is before it as ansible_user"),
        ("10.20.0.21", ""),
        ("2001:db8::1", ""),
        ("2001:db8::22:1", ""),
        ("gpu1.example.org", ""),
    ],
)
def test_an_ansible_host_has_neither_port_nor_user(address: str, hint: str) -> None:
    result = compiled(addresses={"one": address}, llm_address="10.20.0.21")
    assert [one.hint for one in result.errors] == ([hint] if hint else [])


def test_a_template_that_differs_by_host_is_named_where_it_is_written() -> None:
    found = inventory(groups={"llm_stack": ["one", "two"]})
    raw = load("llm_overrides:\n  gateway: {listen: ['{{ ansible_host }}']}", "llm.yml")
    hosts = {
        name: replace(
            host,
            raw=raw,
            variables={
                **host.variables,
                "llm_overrides": load(f"gateway: {{listen: [192.0.2.{at}]}}", "hosts.yml"),
            },
        )
        for at, (name, host) in enumerate(found.hosts.items(), 1)
    }
    result = compile_inventory(replace(found, hosts=hosts))
    (one,) = [one for one in result.errors if one.code == "differing-catalogues"]
    assert str(one.origin) == "llm.yml:2:22"
    assert one.hint.startswith("the catalogue is one for all hosts")
