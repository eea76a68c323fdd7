"""A provider that refuses our key is seen where the alert DeploymentRefusesOurKey looks, and a
client's key is not."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from faults import FAULTS
from harness import CLONE, Gateway, compiled, plan
from stubs import Stubs

sys.path.append(str(CLONE / "tests/monitoring"))

from promql import chosen, groups  # type: ignore[import-not-found]  # mypy looks below tests/gateway

CATALOGUE = """\
llm_providers:
  one:
    type: openai_compatible
    base_url: http://192.0.2.1:8000/v1
    models: [{name: head}, {name: stream}, {name: broken}, {name: last}, {name: head403}, {name: last403}]
  two:
    type: vllm
    base_url: http://192.0.2.2:8000
    models: [{name: step}, {name: broken403}, {name: step403}, {name: healthy}]
llm_routing:
  default_fallbacks: [healthy]
  fallbacks:
    broken: {chain: [step, healthy]}
    broken403: {chain: [step403, healthy]}
    last: {terminal: true}
    last403: {terminal: true}
    healthy: {terminal: true}
"""
"""Refused as the one that was asked for, as a step behind one that fails, and with nobody behind
it."""

BEHAVIOURS = {fault.slug: fault.behaviour for fault in FAULTS}
FAILING = {
    **dict.fromkeys(("head", "stream", "step", "last"), "401"),
    **dict.fromkeys(("head403", "step403", "last403"), "403"),
    **dict.fromkeys(("broken", "broken403"), "500"),
}

SAMPLE = re.compile(r"(\w+)\{(.*)\} (\S+)")


@pytest.fixture(scope="module")
def samples(
    environment: Path, stubs: Stubs, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, Mapping[str, str]]]:
    """Everything the gateway counted after two requests for each, and one with a client's wrong
    key."""
    for number in (1, 2):
        stubs.listen(f"192.0.2.{number}", 8000)
    with Gateway(
        environment, plan(compiled(CATALOGUE)), tmp_path_factory.mktemp("refused")
    ) as gateway:
        for model, fault in FAILING.items():
            behaviour = BEHAVIOURS[fault]
            assert behaviour is not None
            stubs.behaviours[model] = behaviour
        answers = {}
        for model in (*(name for name in FAILING if not name.startswith("step")), "healthy"):
            for _ in range(2):
                answers[model] = gateway.chat(model, stream=model == "stream").status
        stubs.behaviours.clear()
        assert answers == dict.fromkeys(answers, 200) | {"last": 401, "last403": 403}
        wrong = {"Authorization": "Bearer sk-nobodys"}
        assert gateway.chat("healthy", headers=wrong).status == 401
        shown = gateway.request("GET", "/metrics/").body
    found = (SAMPLE.match(line) for line in shown.splitlines())
    return [
        (one[1], dict(re.findall(r'(\w+)="([^"]*)"', one[2])))
        for one in found
        if one and float(one[3])
    ]


def matching(
    samples: list[tuple[str, Mapping[str, str]]], selector: str
) -> list[Mapping[str, str]]:
    """The labels of what `metric{label="value",...}` of Prometheus chooses, with = and =~."""
    metric, _, matchers = selector.partition("{")
    wanted = re.findall(r'(\w+)(=~?)"([^"]*)"', matchers)
    assert len(wanted) == matchers.count('"') / 2
    patterns = {label: value if kind == "=~" else re.escape(value) for label, kind, value in wanted}
    return [
        labels
        for name, labels in samples
        if name == metric
        and all(re.fullmatch(pattern, labels.get(label, "")) for label, pattern in patterns.items())
    ]


def test_the_alert_sees_who_refuses_our_key_and_nobody_else(
    samples: list[tuple[str, Mapping[str, str]]],
) -> None:
    """But for a step behind the first one that answers 403: LiteLLM counts it nowhere."""
    (expression,) = (
        rule["expr"]
        for group in groups()
        for rule in group["rules"]
        if rule.get("alert") == "DeploymentRefusesOurKey"
    )
    selectors = {
        "".join(choice.split()) for _, choice in chosen(expression) if "exception_status" in choice
    }
    assert len(selectors) == 3
    seen = {labels["model_id"] for selector in selectors for labels in matching(samples, selector)}
    models = {"one": ("head", "stream", "last", "head403", "last403"), "two": ("step",)}
    assert seen == {
        f"{provider}/-/{model}" for provider, names in models.items() for model in names
    }


def test_limit_of_the_gateway_401_is_no_failure_of_a_deployment(
    samples: list[tuple[str, Mapping[str, str]]],
) -> None:
    """LiteLLM takes it for a client's. Kept here so that an upgrade that counts it is seen."""
    failures = matching(
        samples, 'litellm_deployment_failure_responses_total{exception_status=~".+"}'
    )
    assert "500" in {labels["exception_status"] for labels in failures}
    assert "401" not in {labels["exception_status"] for labels in failures}
    assert matching(samples, 'modelyard_gateway_refusals_total{status_code="401"}'), (
        "a client's own is the guard's"
    )
