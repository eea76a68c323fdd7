"""Whatever is done to the catalogue: it is refused with a diagnostic, or the document keeps its
promises."""

from __future__ import annotations

import copy
import json
from typing import Any

from catalogues import GROUPS, compiled, document, inventory
from catalogues import load as load_yaml
from hypothesis import given
from hypothesis import strategies as st
from test_document import ADDRESSES, FLEET, SHIPPED_GROUPS, shipped

from modelyard.catalogue.sourcemap import plain
from modelyard.compile import Compiled, compile_inventory
from modelyard.compiler.emit import assert_invariants
from modelyard.compiler.inventory import Host, Inventory

SHIPPED = plain(load_yaml(shipped()))
SECRETS = frozenset({"OLLAMA_CLOUD_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"})

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70000),
    st.floats(allow_nan=True),
    st.sampled_from(["", "llama3.1:latest", "llama-cpp-native", "gpt-oss:20b-cloud", "chain", "disabled",
                     "llm_ollama", "llm_llama_cpp_native", "http://h", "http://[", "a b", "\x00", "1.2.3"]),
    st.text(max_size=4),
)  # fmt: skip
keys = st.one_of(
    st.sampled_from(
        [
            "models",
            "group",
            "chain",
            "terminal",
            "port",
            "name",
            "x",
            "weight",
            "rpm",
            "tags",
            "gpus",
            "default_fallbacks",
            "context_window_fallbacks",
            "aliases",
            "capabilities",
            "cache",
            "timeout",
        ]
    ),
    st.text(max_size=3),
    st.integers(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=6,
)


def spots(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a tree."""
    found: list[tuple[Any, Any]] = []
    for key, child in list(
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    ):
        found += [(node, key), *spots(child)]
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    tree = copy.deepcopy(SHIPPED)
    for _ in range(draw(st.integers(1, 3))):
        places = spots(tree)
        if not places:
            break
        container, key = places[draw(st.integers(0, len(places) - 1))]
        action = draw(st.sampled_from(["replace", "delete", "insert", "swap", "duplicate"]))
        if action == "replace":
            container[key] = draw(values)
        elif action == "delete":
            del container[key]
        elif action == "insert" and isinstance(container, dict):
            container[draw(keys)] = draw(values)
        elif action == "swap":
            other, at = places[draw(st.integers(0, len(places) - 1))]
            container[key] = copy.deepcopy(other[at])
        elif isinstance(container, list):
            container.append(copy.deepcopy(container[key]))
    return {
        key: value for key, value in tree.items() if isinstance(key, str)
    }  # as Ansible's variables are


def promises(result: Compiled) -> None:
    if result.errors:
        assert result.plans == {}
        assert all(d.message and d.render() for d in result.errors)
        json.dumps([d.as_dict() for d in result.diagnostics])
        return
    assert result.public_names
    text = json.dumps(result.as_dict())
    assert text
    for plan in result.plans.values():
        ports = [(s["address"], s["port"]) for s in plan["services"]]
        assert len(ports) == len(set(ports))
        if plan["litellm"]:
            assert_invariants(plan["litellm"]["document"], result.public_names)


@given(tree=mutated(), secrets=st.sampled_from([frozenset(), SECRETS]))
def test_mutations_of_the_catalogue(tree: dict[str, Any], secrets: frozenset[str]) -> None:
    groups = {**GROUPS, **SHIPPED_GROUPS}
    promises(compile_inventory(Inventory(groups, {"one": Host(tree, "one")}, secrets)))


names = st.sampled_from(["m0", "m1", "m2", "m3", "fast", "code", "nobody"])
entries = st.dictionaries(
    names,
    st.one_of(
        st.just({"terminal": True}), st.builds(lambda c: {"chain": c}, st.lists(names, max_size=3))
    ),
    max_size=3,
)


@given(
    models=st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "weight": st.integers(1, 3),
                "rpm": st.integers(1, 9),
                "tpm": st.integers(1, 9),
                "tags": st.lists(st.sampled_from(["eu", "us"]), max_size=2),
                "mode": st.sampled_from(["chat", "embedding"]),
                "context_length": st.integers(1, 3),
                "timeout": st.sampled_from([1, 5000]),
                "price": st.just({"input": 1, "output": 2}),
            },
        ),
        min_size=4,
        max_size=4,
    ),
    shares=st.booleans(),
    routing=st.fixed_dictionaries(
        {},
        optional={
            "fallbacks": entries,
            "context_window_fallbacks": entries,
            "content_policy_fallbacks": entries,
            "default_fallbacks": st.lists(names, max_size=3),
            "aliases": st.dictionaries(names, names, max_size=2),
            "capabilities": st.dictionaries(
                names,
                st.builds(lambda m: {"models": m}, st.lists(names, min_size=1, max_size=3)),
                max_size=2,
            ),
        },
    ),
    cache=st.booleans(),
)
def test_any_routing(
    models: list[dict[str, Any]], shares: bool, routing: dict[str, Any], cache: bool
) -> None:
    """Plausible catalogues in which every part of the routing is drawn: about a quarter of them is
    accepted."""
    listed = [{"name": f"m{number}", **model} for number, model in enumerate(models)]
    providers = {"a": {"type": "openai_compatible", "base_url": "http://h/v1", "models": listed}}
    if shares:
        providers["b"] = {"type": "vllm", "base_url": "http://g", "models": listed[:1]}
    tree = {
        **SHIPPED,
        "llm_providers": providers,
        "llm_routing": routing,
        "llm_gateway": {"cache": {"enabled": cache}},
    }
    promises(compile_inventory(Inventory(GROUPS, {"one": Host(tree, "one")}, frozenset())))


@given(
    override=values,
    shape=st.sampled_from(["whole", "providers", "routing", "gateway", "versions", "models"]),
)
def test_any_override(override: Any, shape: str) -> None:
    over: Any = override
    if shape == "models":
        over = {"providers": {"ollama_cloud": {"models": override}}}
    elif shape != "whole":
        over = {shape: override}
    tree = {**SHIPPED, "llm_overrides": over}
    groups = {**GROUPS, **SHIPPED_GROUPS}
    promises(compile_inventory(Inventory(groups, {"one": Host(tree, "one")}, SECRETS)))


@given(
    chains=st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=10, max_size=10),
    accepted=st.booleans(),
)
def test_any_chains(chains: list[list[int]], accepted: bool) -> None:
    """Random graphs, circles and all: refused for a step to the model itself or a repeated one,
    else each name gets all that can be reached from it, depth first, each once."""
    if accepted:
        chains = [[*dict.fromkeys(n for n in chain if n != i)] for i, chain in enumerate(chains)]
    providers = {
        "cloud": {
            "type": "openai_compatible",
            "base_url": "http://h/v1",
            "models": [{"name": f"m{i}"} for i in range(10)],
        }
    }
    fallbacks = {
        f"m{i}": {"chain": [f"m{n}" for n in chain]} if chain else {"terminal": True}
        for i, chain in enumerate(chains)
    }
    tree = {**SHIPPED, "llm_providers": providers, "llm_routing": {"fallbacks": fallbacks}}
    result = compile_inventory(Inventory(GROUPS, {"one": Host(tree, "one")}, frozenset()))
    promises(result)
    selves = any(i in chain for i, chain in enumerate(chains))
    repeats = any(len(chain) != len(set(chain)) for chain in chains)
    assert bool(result.errors) == (selves or repeats)
    if not result.errors:
        tried = {f"m{i}": [f"m{n}" for n in _depth_first(chains, i, [])] for i in range(10)}
        attempts = {r["name"]: [a["model"] for a in r["attempts"]] for r in result.routes}
        assert attempts == tried
        entries = document(result)["model_list"]
        never = {e["model_name"] for e in entries if e["litellm_params"].get("cooldown_time") == 0}
        for *_others, last in tried.values():
            leads_back = any(last in tried[step] for step in tried[last][1:])
            assert (last in never) != leads_back


def _depth_first(chains: list[list[int]], node: int, seen: list[int]) -> list[int]:
    if node not in seen:
        seen.append(node)
        for step in chains[node]:
            _depth_first(chains, step, seen)
    return seen


@given(order=st.permutations(["gw1", "gw2", "gpu1", "gpu2"]))
def test_order_of_hosts_changes_no_name(order: list[str]) -> None:
    groups = {name: sorted(hosts, key=order.index) for name, hosts in FLEET.items()}
    result = compiled(groups=groups, addresses=ADDRESSES)
    assert result.errors == []
    assert result.public_names == compiled(groups=FLEET, addresses=ADDRESSES).public_names
    assert inventory(groups=groups).groups["llm_stack"] == order
