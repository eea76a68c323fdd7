"""What is wrong with values of secrets, and which host needs which: found on the controller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from catalogues import CATALOGUE, ROOT, change, compiled, inventory, load, places, refused, views
from test_document import SHIPPED_GROUPS, shipped

from modelyard.catalogue.secrets import MISTYPED, SecretView, SeenSecret
from modelyard.catalogue.sourcemap import Origin, SourceMap
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.resolve import resolve
from modelyard.compiler.secrets import uses
from modelyard.compiler.topology import build_topology
from modelyard.diagnostics import Report
from modelyard.names import GRAFANA_PASSWORD, MASTER_KEY, PROCESS_VARIABLES, REDIS_PASSWORD

CLIENTS = "llm_clients:\n  a: {secret: A_KEY}\n  b: {secret: B_KEY}\n"
TWO = {"llm_stack": ["one", "two"]}


def at(line: int, number: int = 1, **more: Any) -> SeenSecret:
    """A secret in llm_secrets on a line."""
    return SeenSecret(number, "llm_secrets", Origin("vault.yml", line, 3), **more)


def seen(*given: SecretView, text: str = CATALOGUE, **more: Any) -> Compiled:
    secrets = frozenset(
        name for view in given for name, secret in view.secrets.items() if secret.is_there
    )
    return compile_inventory(replace(inventory(text, secrets=secrets, **more), views=given))


# -- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["is empty", "is blank", "has several lines", "is a directory"])
def test_a_value_that_cannot_be_used(fault: str) -> None:
    given = SeenSecret(0, "/x/CLOUD_KEY", Origin("x/CLOUD_KEY"), fault)
    text = refused(seen(*views(CLOUD_KEY=given)), "secret-unusable", None)
    assert (
        f'x/CLOUD_KEY: error[secret-unusable]: CLOUD_KEY, the key of provider "cloud", {fault}'
        in text
    )


def test_a_value_in_the_environment_has_the_line_that_names_it() -> None:
    given = SeenSecret(0, "the environment", None, "has several lines")
    text = refused(seen(*views(CLOUD_KEY=given)), "secret-unusable", 15)
    assert "has several lines in the environment" in text
    assert "alone on one line" in text


def test_a_generated_secret_that_is_set_to_nothing() -> None:
    text = refused(seen(*views(**{MASTER_KEY: at(3, 0)})), "secret-unusable", 3)
    assert "is empty" in text
    assert "one is generated" in text


def test_a_key_that_no_header_takes() -> None:
    assert "white space" in refused(
        seen(*views(CLOUD_KEY=at(3, unsendable=True))), "secret-unusable", 3
    )
    # A person's password may have such characters.
    assert seen(*views(GRAFANA_ADMIN_PASSWORD=at(3, unsendable=True))).errors == []


@pytest.mark.parametrize("fault", MISTYPED)
def test_a_value_that_is_no_text(fault: str) -> None:
    text = refused(seen(*views(CLOUD_KEY=at(3, 0, fault=fault))), "invalid-value", 3)
    assert f"the value of CLOUD_KEY {fault}" in text
    assert "quotes" in text


def test_an_unused_value_of_another_type_is_refused_too() -> None:
    refused(seen(*views(LATER=at(3, 0, fault=MISTYPED[0]))), "invalid-value", 3)


def test_a_name_that_nothing_uses() -> None:
    result = seen(*views(LITELLM_MASTERKEY=at(3), CLOUD_KEY=at(4, 2)))
    assert result.errors == []
    (warning,) = [one for one in result.warnings if one.code == "no-effect"]
    assert warning.hint == 'did you mean "LITELLM_MASTER_KEY"?'
    assert warning.origin == Origin("vault.yml", 3, 3)


def test_a_key_of_an_engine_is_used() -> None:
    """Its name follows from the provider's, whoever defines it."""
    assert "no-effect" not in [one.code for one in seen(*views(LOCAL_API_KEY=at(3, 4))).warnings]


@pytest.mark.parametrize("name", ["LOCAL_API_KEYS", "LITELLM_MASTER_KEY_FORMR", "FORMER"])
def test_nobody_is_told_of_a_former_value(name: str) -> None:
    result = seen(*views(**{name: at(3, 4)}))
    assert [one.code for one in result.warnings if one.code == "no-effect"]
    assert "_FORMER" not in "".join(one.hint for one in result.diagnostics)


@pytest.mark.parametrize(
    "name", ["sk-proj-abcdef", "tulip", "q8Zt3Lm9Xc2Vb7Nk4Pw6Rs1", "two words"]
)
def test_name_and_value_swapped(name: str) -> None:
    result = seen(*views(**{name: at(3, 4)}))
    (warning,) = [one for one in result.warnings if one.code == "no-effect"]
    assert name not in warning.render()
    assert "swapped" in warning.hint
    assert warning.origin == Origin("vault.yml", 3, 3)


def test_a_name_in_capitals_that_is_a_value() -> None:
    given = [replace(one, holds="LOCAL_API_KEY".__eq__) for one in views(TULIP=at(3, 4))]
    (warning,) = [one for one in seen(*given).warnings if one.code == "no-effect"]
    assert "TULIP" not in warning.render()


def test_a_value_instead_of_a_name() -> None:
    """As a template gives it: `{{ llm_secrets.CHAT_KEY }}`."""
    client = "llm_clients: {app: {secret: LEAKTHREE33}}\nllm_versions:"
    text = change("llm_versions:", client, change("CLOUD_KEY", "LEAKTHREE33"))
    given = [replace(one, holds="LEAKTHREE33".__eq__) for one in views(CHAT_KEY=at(3, 4))]
    result = seen(*given, text=text)
    assert places(result) == [("invalid-value", 15), ("invalid-value", 25)]
    assert "is the value of a secret" in result.errors[0].message
    assert "LEAK" not in "".join(one.render() for one in result.diagnostics)
    # Of the value's own name nothing is said: it is what was meant.
    assert "no-effect" not in [one.code for one in result.diagnostics]


@pytest.mark.parametrize("name", ["cloud_key", "CLOUD_KEY.txt", "Cloud-Key"])
def test_a_name_that_is_written_differently_where_it_is_defined(name: str) -> None:
    hint = seen(SecretView(("one",), "s", {name: at(3)})).errors[0].hint
    assert hint == f'it is defined as "{name}": rename that to CLOUD_KEY'


def test_a_name_that_is_written_differently_in_the_catalogue() -> None:
    text = change("CLOUD_KEY", "CLOUDKEY")
    assert seen(*views(), text=text).errors[0].hint == 'did you mean "CLOUD_KEY"?'


def test_a_value_that_is_set_to_nothing() -> None:
    text = refused(seen(SecretView(("one",), "s", {"CLOUD_KEY": at(3, 0)})), "secret-unusable", 3)
    assert "CLOUD_KEY" in text
    assert "is empty" in text
    hook = "llm_monitoring: {alertmanager: {webhook: {url: 'https://e.org/a', token_env: HOOK}}}"
    text = change("llm_versions:", f"{hook}\nllm_versions:")
    given = views(HOOK=at(3, 0))
    refused(seen(*given, text=text, groups={"llm_monitoring": ["one"]}), "secret-unusable", 3)


def test_nothing_is_no_mistake_where_another_place_has_a_value_or_none_is_needed() -> None:
    text = change("CLOUD_KEY", "CLOUD_KEY\n    when_secret_missing: skip")
    text = change("small: {chain: [big-cloud]}", "small: {terminal: true}", text)
    given = SecretView(("one",), "s", {"CLOUD_KEY": at(3, 0)})
    assert seen(given, text=text).errors == []


def test_secrets_of_a_host_replace_those_of_the_group() -> None:
    """The file that replaces is to blame, not the one that has the secret."""
    own = Origin("host_vars/two.yml", 2, 3)
    group = Origin("group_vars/llm_stack/secrets.yml", 2, 3)
    has = SeenSecret(5, "llm_secrets", group)
    cloud = SeenSecret(99, "the environment")
    given = [
        SecretView(("one",), "s", {"LOCAL_API_KEY": has, "CLOUD_KEY": cloud}, "", group),
        SecretView(("two",), "s", {"CLOUD_KEY": cloud}, "", own),
    ]
    groups = {**TWO, "llm_local": ["two"]}
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    text = refused(seen(*given, groups=groups, addresses=addresses), "secret-undefined", 2)
    assert text.startswith("host_vars/two.yml:2:3: ")
    assert "it replaces that one for two: add LOCAL_API_KEY here" in text
    # The other way round: the group's is no replacement of the host's.
    given = [replace(one, hosts=one.hosts[::-1]) for one in given]
    given[0] = replace(given[0], hosts=("two",))
    given[1] = replace(given[1], hosts=("one",))
    swapped = [
        replace(given[0], origin=own, secrets={"LOCAL_API_KEY": replace(has, origin=own)}),
        replace(given[1], origin=group),
    ]
    text = seen(*swapped, groups=groups, addresses=addresses).errors[0].render()
    assert text.startswith("host_vars/two.yml:2:3: ")
    assert "but not for one" in text


def test_a_list_of_secrets_is_refused_once() -> None:
    variables = [load("llm_secrets: [{name: A}]", "secrets.yml") for _ in range(3)]
    given = inventory(groups={"llm_stack": ["one", "two", "three"]})
    hosts = {
        name: replace(host, variables={**host.variables, **own})
        for (name, host), own in zip(given.hosts.items(), variables, strict=True)
    }
    result = compile_inventory(replace(given, hosts=hosts))
    messages = [one.message for one in result.errors if "not a mapping" in one.message]
    assert len(messages) == 1


def test_secrets_of_what_is_disabled_and_former_ones_are_used() -> None:
    text = change("type: openai\n", "type: openai\n    status: disabled\n")
    text = change("[small, big-cloud]", "[small]", text)
    text = change("{chain: [big-cloud]}", "{terminal: true}", text)
    text = change("    big-cloud: {terminal: true}\n", "", text)
    given = views(
        CLOUD_KEY=at(3),
        LITELLM_MASTER_KEY_FORMER=at(4, 2),
        LOCAL_API_KEY_FORMER=at(5, 3),
        LOCAL_API_KEY=at(6, 4),
    )
    result = seen(*given, text=text)
    assert [one.code for one in result.diagnostics if one.code == "no-effect"] == []


def test_a_directory_of_secrets_that_is_none() -> None:
    given = [replace(one, fault="cannot be read (Not a directory)") for one in views()]
    assert "the secrets in store cannot be used" in refused(seen(*given), "secret-unusable", None)


# -- hosts ---------------------------------------------------------------------------------------


def test_a_secret_that_another_host_sees() -> None:
    """It would be generated for the gateway, and the provider would take it for a wrong key."""
    given = [SecretView(("one",), "s", {}), SecretView(("two",), "s", {"CLOUD_KEY": at(2)})]
    text = refused(seen(*given, groups=TWO), "secret-undefined", 2)
    assert "is defined for two (vault.yml:2:3), but not for one" in text
    assert "group_vars/llm_stack" in text


def test_a_secret_where_it_is_needed_is_enough() -> None:
    given = [*views("one", CLOUD_KEY=at(2)), SecretView(("two",), "s", {})]
    assert seen(*given, groups=TWO).errors == []


def test_a_generated_secret_that_only_one_of_two_sees() -> None:
    groups = {**TWO, "llm_redis": ["two"]}
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    given = [*views("one"), SecretView(("two",), "s", {REDIS_PASSWORD: at(2)})]
    text = refused(seen(*given, groups=groups, addresses=addresses), "secret-undefined", 2)
    assert "REDIS_PASSWORD" in text
    assert "not for one" in text


def test_two_values() -> None:
    given = [*views("one", CLOUD_KEY=at(2, 1)), SecretView(("two",), "s", {"CLOUD_KEY": at(9, 2)})]
    text = refused(seen(*given, groups=TWO), "secret-differs", 9)
    assert "two (vault.yml:9:3)" in text
    assert "one (vault.yml:2:3)" in text


def test_one_value_in_two_places() -> None:
    given = [*views("one", CLOUD_KEY=at(2)), SecretView(("two",), "s", {"CLOUD_KEY": at(9)})]
    assert seen(*given, groups=TWO).errors == []


def test_hosts_of_two_inventories_would_get_two_values() -> None:
    groups = {**TWO, "llm_redis": ["two"]}
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    given = [*views("one", store="a"), SecretView(("two",), "b", {})]
    text = refused(seen(*given, groups=groups, addresses=addresses), "secret-undefined", None)
    assert "would be generated in a, b" in text


def test_a_host_of_which_nothing_is_known_misses_nothing() -> None:
    assert seen(*views("one"), groups=TWO).errors == []


# -- one value for two -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("A_KEY", "B_KEY"),
        ("A_KEY", MASTER_KEY),
        ("A_KEY", "LOCAL_API_KEY"),
        ("A_KEY", "CLOUD_KEY"),
        ("A_KEY", "REDIS_PASSWORD"),
        ("CLOUD_KEY", MASTER_KEY),
        ("LOCAL_API_KEY", MASTER_KEY),
        ("A_KEY", "LITELLM_MASTER_KEY_FORMER"),
    ],
)
def test_one_value_for_two(one: str, two: str) -> None:
    text = change("llm_versions:", f"{CLIENTS}llm_versions:")
    result = seen(*views(**{one: at(2, 7), two: at(3, 7)}), text=text)
    assert [one.code for one in result.errors] == ["secret-shared"]
    assert {one, two} <= set(result.errors[0].message.replace(",", "").split())


def test_one_value_that_harms_nobody() -> None:
    """Of what one person sets for the host's own services it is a doubt."""
    result = seen(*views(REDIS_PASSWORD=at(2, 7), LITELLM_MASTER_KEY=at(3, 7)))
    assert result.errors == []
    assert "secret-shared" in [one.code for one in result.warnings]
    # Not begun, or not ended: both names have the value for a moment.
    result = seen(*views(LITELLM_MASTER_KEY_FORMER=at(2, 7), LITELLM_MASTER_KEY=at(3, 7)))
    assert [one.code for one in result.diagnostics if one.code == "secret-shared"] == []


@pytest.mark.parametrize(
    "name", ["LITELLM_MASTER_KEY_FORMER", "REDIS_PASSWORD_FORMER", "LOCAL_API_KEY_FORMER"]
)
def test_names_of_former_values(name: str) -> None:
    """The hosts would take a client's key for the former key of the gateway."""
    client = change("llm_versions:", f"llm_clients: {{app: {{secret: {name}}}}}\nllm_versions:")
    assert "keeps the former value" in refused(compiled(client), "secret-shared", 25)
    provider = change("CLOUD_KEY", name)
    refused(compiled(provider), "secret-reserved", 15)
    secrets = frozenset({"CLOUD_KEY", name})
    refused(compiled(provider, secrets=secrets), "secret-reserved", 15)
    webhook = f"llm_monitoring: {{alertmanager: {{webhook: {{url: 'https://e.org/a', token_env: {name}}}}}}}"
    text = change("llm_versions:", f"{webhook}\nllm_versions:")
    refused(compiled(text, secrets=secrets), "secret-reserved", 25)


def test_a_variable_of_the_gateways_process_is_no_secret() -> None:
    unit = (ROOT / "roles/litellm/templates/modelyard-litellm@.service.j2").read_text()
    set_there = re.findall(
        r"\b([A-Z][A-Z_]+)=", " ".join(re.findall(r"^Environment=(.*)$", unit, re.M))
    )
    assert set(set_there) <= PROCESS_VARIABLES
    text = refused(compiled(change("CLOUD_KEY", "PYTHONPATH")), "secret-reserved", 15)
    assert "process" in text


def test_the_hub_does_not_get_the_master_key() -> None:
    text = change("llm_versions:", "llm_versions:\n  hugging_face: {token_env: LITELLM_MASTER_KEY}")
    refused(compiled(text), "secret-reserved", 26)


def test_a_hint_offers_no_secret_that_is_refused() -> None:
    secrets = frozenset({"CLOUD_KEY_FORMER", "LITELLM_MASTER_KEY"})
    text = refused(
        compiled(change("CLOUD_KEY", "LITELLM_MASTER_KEYS"), secrets=secrets),
        "secret-undefined",
        15,
    )
    assert "did you mean" not in text


def test_a_client_of_which_no_name_is_served() -> None:
    text = change(
        "llm_versions:", "llm_clients: {app: {secret: KEY, models: [big-cloud]}}\nllm_versions:"
    )
    text = change(
        "    api_key_env: CLOUD_KEY\n",
        "    api_key_env: CLOUD_KEY\n    when_secret_missing: skip\n",
        text,
    )
    text = change("    small: {chain: [big-cloud]}\n", "    small: {terminal: true}\n", text)
    result = compiled(text, secrets=frozenset())
    assert ("name-unreachable", 26) in places(result, "warning")
    assert result.errors == []
    assert ("name-unreachable", 26) not in places(compiled(text), "warning")


# -- who needs which: what the plans say -----------------------------------------------------------


def planned(result: Compiled) -> dict[str, set[str]]:
    """By secret, the hosts whose plans name it."""

    def of(part: Any) -> Iterator[str]:
        if isinstance(part, dict):
            for key, value in part.items():
                if key == "secrets":
                    yield from value.values()
                elif key == "clients":
                    yield from (client["secret"] for client in value.values())
                else:
                    yield from of(value)
        elif isinstance(part, list):
            for value in part:
                yield from of(value)

    found: dict[str, set[str]] = {}
    for host, plan in result.plans.items():
        for name in of(plan):
            found.setdefault(name, set()).add(host)
    return found


HOSTS = ["gw1", "gw2", "ops", "gpu1", "gpu2", "gpu3"]
WIDE = {
    "llm_stack": HOSTS,
    "llm_gateway": ["gw1", "gw2"],
    "llm_redis": ["ops"],
    "llm_monitoring": ["ops"],
    "llm_ollama": ["gpu1"],
    "llm_llama_cpp_native": ["gpu1", "gpu2"],
    "llm_llama_cpp_python": ["gpu2"],
    "llm_vllm_qwen": ["gpu3"],
}
MORE = """
llm_clients: {app: {secret: APP_KEY}}
"""


@pytest.mark.parametrize("redis", [["ops"], ["gw1"], []])
@pytest.mark.parametrize("watched", [["ops"], ["gpu2"], []])
@pytest.mark.parametrize(
    "former", [frozenset(), frozenset({"LITELLM_MASTER_KEY_FORMER", "REDIS_PASSWORD_FORMER"})]
)
def test_the_hosts_of_a_secret_are_those_of_the_plans(
    redis: list[str], watched: list[str], former: frozenset[str]
) -> None:
    groups = {**SHIPPED_GROUPS, **WIDE, "llm_redis": redis, "llm_monitoring": watched}
    text = shipped() + MORE
    text = text.replace(
        "llm_versions:\n",
        "llm_versions:\n  grafana: {version: '12.3.0', source: {path: /g.tar.gz, sha256: SHA}}\n",
        1,
    ).replace("SHA", "b" * 64)
    addresses = {host: f"192.0.2.{number}" for number, host in enumerate(HOSTS, 1)}
    secrets = frozenset({"OLLAMA_CLOUD_API_KEY"}) | former
    given = inventory(text, groups=groups, secrets=secrets, addresses=addresses)
    result = compile_inventory(given)
    assert result.errors == [], [one.render() for one in result.errors]
    assert result.catalogue
    report = Report(SourceMap({}))
    resolved = resolve(result.catalogue, given.groups, secrets, report, sound=True)
    topology = build_topology(given, HOSTS, result, watched=True)
    found: dict[str, set[str]] = {}
    for use in uses(result.catalogue, resolved, topology, secrets):
        found.setdefault(use.name, set()).update(use.hosts)
    assert found == planned(result)
    assert (GRAFANA_PASSWORD in found) == bool(watched)
