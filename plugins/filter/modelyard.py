"""Names of the filters and their errors. What they do is in the package modelyard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleFilterError

from modelyard.catalogue.sourcemap import plain
from modelyard.catalogue.versions import below_floor
from modelyard.gpu.cuda import CudaError, choose_build
from modelyard.operations.diff import compare, observed
from modelyard.operations.drill import DrillError, Forecast, Stack, differences, drill
from modelyard.operations.releases import RollbackError, way_back
from modelyard.operations.releases import render as render_releases
from modelyard.operations.rollouts import progress
from modelyard.operations.status import render as render_status
from modelyard.operations.status import status
from modelyard.output.render import render_changes
from modelyard.output.systemd import fill_words, systemd_word
from modelyard.plan.model import HostPlan
from modelyard.plan.parts import PartError, part


def typed(plans: Mapping[str, Any]) -> dict[str, HostPlan]:
    """Return the plans that modelyard_compile returned, with their types."""
    return {host: HostPlan.model_validate(plan) for host, plan in plain(plans).items()}


def modelyard_part(given: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return what a role is given of a plan: `given`, with the defaults of all other keys.

    Raises AnsibleFilterError where a role has no part, or for a key or value that is not valid.
    """
    try:
        return part(str(role), plain(given))
    except PartError as error:
        raise AnsibleFilterError(str(error)) from error


def litellm_config(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of the gateway on the host that `plan` is of.

    Raises AnsibleFilterError if there is none.
    """
    gateway = plan.get("litellm") if isinstance(plan, Mapping) else None
    if not gateway:
        raise AnsibleFilterError(
            "expected the plan of a host with a gateway: one of modelyard_compile's `plans`"
        )
    document: dict[str, Any] = gateway["document"]
    return document


def litellm_model_list(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the deployments of that configuration. Raises AnsibleFilterError."""
    deployments: list[dict[str, Any]] = litellm_config(plan)["model_list"]
    return deployments


def litellm_fallbacks(plan: Mapping[str, Any]) -> list[dict[str, list[str]]]:
    """Return the flat chains of that configuration. Raises AnsibleFilterError."""
    chains: list[dict[str, list[str]]] = litellm_config(plan)["router_settings"]["fallbacks"]
    return chains


def modelyard_below_floor(version: object, component: str) -> str:
    """Return the oldest version of a component without known security holes, if `version` is older;
    else "".
    """
    return below_floor(str(component), str(version))


def modelyard_changes(plans: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """Return what would change on every host of `plans`, as text.

    `results` are by host those of modelyard_live.
    """
    return render_changes(
        compare(typed(plans), {host: observed(result) for host, result in plain(results).items()})
    )


def modelyard_drill(
    compiled: Mapping[str, Any],
    fault: str,
    model: str,
    host: str,
    environment: str,
    confirmed: bool,
) -> dict[str, Any]:
    """Return what a fault means for the compiled plans: fault, model, shell, units by host,
    forecast.

    Raises AnsibleFilterError where it is refused.
    """
    stack = Stack(
        typed(compiled["plans"]),
        plain(compiled["local_chat_models"]),
        plain(compiled["pools"]),
        {route["name"]: _models(route) for route in plain(compiled["routes"])},
    )
    try:
        found = drill(stack, str(fault), str(model), str(host), str(environment), bool(confirmed))
    except DrillError as error:
        raise AnsibleFilterError(str(error)) from error
    return asdict(found)


def _models(route: Mapping[str, Any]) -> list[str]:
    return [attempt["model"] for attempt in route["attempts"]]


def modelyard_drill_differences(seen: Mapping[str, Any], forecast: Mapping[str, Any]) -> list[str]:
    """Return how what a client saw (the result of the module modelyard_drill) differs from the
    forecast of the filter modelyard_drill.
    """
    return list(differences(Forecast(**plain(forecast)), plain(seen)))


def modelyard_releases(results: Mapping[str, Any], now: int) -> str:
    """Return what is live and what can be gone back to, as text.

    `results` are by host those of modelyard_live with `history`, `now` is in seconds since 1970.
    """
    return render_releases(
        {host: _history(result) for host, result in plain(results).items()}, int(now)
    )


def modelyard_way_back(
    results: Mapping[str, Any], service: str = "", release: str = ""
) -> list[dict[str, Any]]:
    """Return the steps of a rollback: host, service, release (null: it goes away), stage, text.

    Hosts that could not be asked have no steps. Raises AnsibleFilterError where there is no way
    back.
    """
    histories = {host: _history(result) for host, result in plain(results).items()}
    try:
        steps = way_back(
            {host: one for host, one in histories.items() if not isinstance(one, str)},
            service,
            release,
        )
    except RollbackError as error:
        raise AnsibleFilterError(str(error)) from error
    return [
        {
            "host": step.host,
            "service": step.service,
            "release": step.release,
            "stage": step.stage,
            "text": str(step),
        }
        for step in steps
    ]


def _history(result: Mapping[str, Any]) -> Any:
    """Return the history that a host told, or why it could not be asked."""
    return result["history"] if "history" in result else observed(result)


def modelyard_status(
    plans: Mapping[str, Any] | None, lives: Mapping[str, Any], founds: Mapping[str, Any]
) -> dict[str, Any]:
    """Return how everything is, as data.

    `plans` are None if the catalogue has errors; `lives` and `founds` are by host the results of
    modelyard_live and modelyard_status.
    """
    live = {host: observed(result) for host, result in plain(lives).items()}
    found = {
        host: result
        if "services" in result
        else live[host]
        if isinstance(live[host], str)
        else str(result.get("msg"))
        for host, result in plain(founds).items()
    }
    return status(typed(plans) if plans else None, live, found)


def modelyard_status_text(found: Mapping[str, Any]) -> str:
    """Return the result of modelyard_status as text."""
    return render_status(plain(found))


def modelyard_progress(
    waves: Sequence[Sequence[str]], changed: Sequence[str], failures: Mapping[str, str]
) -> str:
    """Return as text how far a rollout got.

    `changed` are the hosts that did, `failures` by host why others did not.
    """
    return progress(plain(waves), plain(changed), plain(failures))


def modelyard_fill_words(words: Sequence[str], given: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a plan's command line with its placeholders replaced by the words that `given` has for
    them.
    """
    return fill_words(plain(words), plain(given))


def modelyard_systemd_word(word: object) -> str:
    """Return a word of a unit's command line, quoted as systemd wants it. Numbers are words too."""
    return systemd_word(str(word))


def modelyard_cuda_build(facts: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """Return what decides the bytes of an engine's build, from the facts of modelyard_gpu_facts.

    The options are those of modelyard.gpu.cuda.choose_build. Raises AnsibleFilterError.
    """
    try:
        return choose_build(facts=plain(facts), **plain(options))
    except CudaError as error:
        raise AnsibleFilterError(str(error)) from error


FILTERS: tuple[Callable[..., Any], ...] = (
    litellm_config,
    litellm_fallbacks,
    litellm_model_list,
    modelyard_below_floor,
    modelyard_changes,
    modelyard_cuda_build,
    modelyard_drill,
    modelyard_drill_differences,
    modelyard_fill_words,
    modelyard_part,
    modelyard_releases,
    modelyard_status,
    modelyard_status_text,
    modelyard_systemd_word,
    modelyard_progress,
    modelyard_way_back,
)
"""Each is called like its function, and documented in a file of that name beside this one."""


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {function.__name__: function for function in FILTERS}
