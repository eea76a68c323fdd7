"""Choosing another model: what is overridden, what clients see meanwhile, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from catalogues import inventory, part
from test_engines import ADDRESSES, CATALOGUE, GROUPS, change

from modelyard.catalogue.overrides import SWITCHED
from modelyard.compile import compile_inventory
from modelyard.compiler.inventory import Inventory
from modelyard.operations.switching import UPGRADED, Switch, SwitchError, rotation, switch, upgrade


def stack(text: str = CATALOGUE, **variables: Any) -> Inventory:
    return inventory(text, groups=GROUPS, addresses=ADDRESSES, secrets=frozenset(), **variables)


def to_dolphin(**keywords: Any) -> Switch:
    return switch(stack(**keywords), "dolphin", "dolphin")


def units(plan: dict[str, Any]) -> list[str]:
    return [service["service"] for service in plan["services"]]


def test_to_another_provider_of_the_exclusive_group() -> None:
    found = to_dolphin()
    assert found.overrides == {
        "providers": {"dolphin": {"status": "active"}, "qwen": {"status": "disabled"}}
    }
    assert (found.hosts, found.changed, found.uncovered) == (("b",), True, ())
    assert units(found.final.plans["b"]) == ["vllm@dolphin"]
    assert found.final.public_names.count("coder") == 1
    # What was chosen, written into the inventory, is what the next run compiles.
    assert compile_inventory(stack(**{SWITCHED: found.overrides})).plans == found.final.plans


def test_back_again() -> None:
    there = to_dolphin()
    back = switch(stack(**{SWITCHED: there.overrides}), "qwen", "coder")
    assert back.overrides["providers"] == {
        "dolphin": {"status": "disabled"},
        "qwen": {"status": "active"},
    }
    assert units(back.final.plans["b"]) == ["vllm@coder"]


def test_to_what_runs_already() -> None:
    assert not switch(stack(), "qwen", "coder").changed


def test_another_model_of_the_provider() -> None:
    text = change(
        "      - {name: dolphin, source: {path: /models/dolphin}}\n",
        "      - {name: dolphin, source: {path: /models/dolphin}}\n"
        "      - {name: whale, source: {path: /models/whale}}\n",
    ).replace("    dolphin: {chain", "    whale: {chain: [Tiny.7b]}\n    dolphin: {chain")
    found = switch(stack(text), "dolphin", "whale")
    assert found.overrides["providers"]["dolphin"] == {"status": "active", "active": "whale"}
    assert units(found.final.plans["b"]) == ["vllm@whale"]


def test_names_that_nobody_answers_meanwhile_are_told() -> None:
    text = change("dolphin: {chain: [coder, snake]}", "dolphin: {terminal: true}")
    assert switch(stack(text), "dolphin", "dolphin").uncovered == ("dolphin",)


def test_the_choice_is_merged_into_what_was_chosen_before() -> None:
    before = {"providers": {"python": {"port": 8009}}}
    found = to_dolphin(**{SWITCHED: before})
    assert found.overrides["providers"]["python"] == {"port": 8009}


@pytest.mark.parametrize(
    ("provider", "model", "says"),
    [
        ("dolfin", "dolphin", 'did you mean "dolphin"'),
        ("dolphin", "dolfin", 'did you mean "dolphin"'),
        ("qwen", "coder-sql", "is not a model of provider"),
        ("ollama", "chatty", "one Ollama serves all its models"),
        ("native", "Tiny.7b", "run at the same time"),
    ],
)
def test_refused(provider: str, model: str, says: str) -> None:
    with pytest.raises(SwitchError, match=says):
        switch(stack(), provider, model)


def test_refused_where_the_provider_has_no_host() -> None:
    nowhere = replace(stack(), groups={**GROUPS, "llm_vllm": []})
    with pytest.raises(SwitchError, match="is not deployed"):
        switch(nowhere, "dolphin", "dolphin")


def test_the_choice_wins_over_what_the_files_say() -> None:
    found = to_dolphin(
        llm_overrides_zz={"providers": {"qwen": {"status": "active"}}},
        llm_overrides={"providers": {"dolphin": {"status": "disabled"}}},
    )
    assert units(found.final.plans["b"]) == ["vllm@dolphin"]


def test_refused_while_the_catalogue_has_errors() -> None:
    with pytest.raises(SwitchError, match="unknown-key"):
        to_dolphin(llm_overrides={"providers": {"dolphin": {"prt": 1}}})


# -- versions --------------------------------------------------------------------------------------


def test_another_version_and_where_it_runs() -> None:
    found = upgrade(stack(), "vllm", "0.33.0")
    assert (found.former, found.hosts) == ("0.32.0", ("b",))
    assert found.overrides == {"versions": {"vllm": {"version": "0.33.0"}}}
    assert part(found.final.plans["b"], "vllm")["version"] == "0.33.0"
    # What was chosen, written into the inventory, is what the next run compiles, and an older one
    # is as good.
    kept = stack(**{UPGRADED: found.overrides})
    assert compile_inventory(kept).plans == found.final.plans
    assert upgrade(kept, "vllm", "0.32.0").former == "0.33.0"
    assert upgrade(kept, "vllm", "0.33.0").hosts == ()


def test_another_source_with_it() -> None:
    source = {"url": "https://x.example/new.tgz", "sha256": "b" * 64}
    found = upgrade(
        stack(**{UPGRADED: {"versions": {"vllm": {"version": "0.33.0"}}}}),
        "ollama",
        "0.18.0",
        source,
    )
    assert part(found.final.plans["a"], "ollama")["source"] == source
    assert found.overrides["versions"]["vllm"] == {"version": "0.33.0"}, (
        "what was chosen before stays"
    )


@pytest.mark.parametrize(
    ("component", "version", "message"),
    [
        ("redis", "8.0", "redis comes from the distribution: run apt-get install --only-upgrade"),
        ("litelm", "1.108.1", 'no version of "litelm": did you mean "litellm"?'),
        (
            "ollama",
            "0.18.0",
            "The checksum of ollama 0.17.4 is in the catalogue and fits no other version",
        ),
        ("vllm", "0.1.0", "version-unsafe"),
        ("litellm", "1.108.1", "version-without-lock"),
        ("grafana", "12.3.0", 'no version of "grafana"'),
    ],
)
def test_a_version_that_cannot_be_had_is_refused(
    component: str, version: str, message: str
) -> None:
    locked = replace(stack(), locks={"litellm": frozenset({"1.106.2"})})
    with pytest.raises(SwitchError) as refused:
        upgrade(locked, component, version)
    assert message in str(refused.value)


def test_a_version_that_somebody_wrote_down_is_changed_there() -> None:
    mine = stack(llm_overrides={"versions": {"vllm": {"version": "0.31.0"}}})
    with pytest.raises(SwitchError, match=r"set vllm 0\.31\.0 and take precedence.*llm_overrides"):
        upgrade(mine, "vllm", "0.33.0")


def test_an_engines_key_is_changed_while_nobody_is_sent_to_it() -> None:
    found = rotation(stack(), "QWEN_API_KEY")
    assert (found.kind, found.hosts, found.uncovered) == ("engine", ("b",), ())
    assert found.final.plans == compile_inventory(stack()).plans
    bases = [
        entry["litellm_params"]["api_base"]
        for entry in found.away.plans["g"]["litellm"]["document"]["model_list"]
    ]
    assert bases
    assert not any("pool.qwen" in base for base in bases)


def test_who_accepts_the_former_value() -> None:
    """Only those whose clients cannot be told all at once, and only while it is there."""
    former = frozenset({"LITELLM_MASTER_KEY_FORMER"})
    plans = rotation(replace(stack(), secrets=former), "LITELLM_MASTER_KEY").final.plans
    assert (
        plans["g"]["litellm"]["secrets"]["LITELLM_MASTER_KEY_FORMER"] == "LITELLM_MASTER_KEY_FORMER"
    )
    assert (
        "LITELLM_MASTER_KEY_FORMER"
        not in compile_inventory(stack()).plans["g"]["litellm"]["secrets"]
    )


@pytest.mark.parametrize("secret", ["QWEN_API", "OPENAI_API_KEY", "GRAFANA_ADMIN_PASSWORD", ""])
def test_what_cannot_be_rotated_is_refused_with_what_can(secret: str) -> None:
    with pytest.raises(
        SwitchError, match=r"cannot be rotated; LITELLM_MASTER_KEY, .*QWEN_API_KEY.* can\."
    ):
        rotation(stack(), secret)


ALONE = """\
llm_providers:
  qwen:
    type: vllm
    group: llm_vllm
    port: 8001
    exclusive_group: card
    models: [{name: coder, source: {path: /models/coder}}]
  dolphin:
    type: vllm
    status: disabled
    group: llm_vllm
    port: 8002
    exclusive_group: card
    models: [{name: dolphin, source: {path: /models/dolphin}}]
llm_versions:
  litellm: {version: 1.106.2}
  vllm: {version: 0.32.0}
"""


def test_where_nobody_could_step_in_the_gateway_stays_as_it_is() -> None:
    """One card and nothing else: there is no gateway that serves nobody, so nothing is answered for
    a while."""
    before = compile_inventory(stack(ALONE))
    found = switch(stack(ALONE), "dolphin", "dolphin")
    assert found.uncovered == tuple(found.final.public_names)
    key = rotation(stack(ALONE), "QWEN_API_KEY")
    assert key.away.plans == before.plans
    assert key.uncovered == tuple(before.public_names)


def test_two_on_a_card_that_answer_for_each_other() -> None:
    """Whichever runs, both names are answered, before and after a switch."""
    text = change("    coder: {chain: [ready]}\n", "    coder: {chain: [dolphin]}\n").replace(
        "dolphin: {chain: [coder, snake]}", "dolphin: {chain: [coder]}"
    )
    before = compile_inventory(stack(text))
    (warning,) = [one for one in before.diagnostics if one.code == "chain-lost"]
    assert warning.severity == "warning"
    found = switch(stack(text), "dolphin", "dolphin")
    tried = {
        route["name"]: [attempt["model"] for attempt in route["attempts"]]
        for compiled in (before, found.final)
        for route in compiled.routes
        if route["kind"] == "inactive"
    }
    assert tried == {"dolphin": ["coder"], "coder": ["dolphin"], "coder-sql": ["dolphin"]}
    assert found.uncovered == ("dolphin", "coder", "coder-sql")


def test_a_lost_fallback_elsewhere_is_still_refused() -> None:
    """`ready` does not share the card: the switch takes its only fallback away for good."""
    text = change("ready: {chain: [chatty]}", "ready: {chain: [coder]}")
    with pytest.raises(SwitchError, match='every step of the chain of "ready" was left out'):
        switch(stack(text), "dolphin", "dolphin")


def test_one_of_two_that_step_in_for_each_other_is_away() -> None:
    """The other answers for both, and is the last step meanwhile."""
    text = change("ready: {chain: [chatty]}", "ready: {chain: [coder]}")
    found = rotation(stack(text), "QWEN_API_KEY")
    assert found.uncovered == ()
    away = found.away.plans["g"]["litellm"]["document"]
    never = {
        entry["model_name"]
        for entry in away["model_list"]
        if entry["litellm_params"].get("cooldown_time") == 0
    }
    assert {"coder": ["ready"]}.items() <= {
        group["group_name"]: group["models"] for group in away["router_settings"]["routing_groups"]
    }.items()
    assert "ready" in never
    both = found.final.plans["g"]["litellm"]["document"]
    assert all(
        "cooldown_time" not in entry["litellm_params"]
        for entry in both["model_list"]
        if entry["model_name"] in ("ready", "coder")
    )
