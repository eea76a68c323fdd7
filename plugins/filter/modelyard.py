"""Names of the filters and their errors. What they do is in the package modelyard."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from modelyard.catalogue.sourcemap import plain
    from modelyard.compiler.compile import compile_document
    from modelyard.controller.origins import ansible_origin
    from modelyard.gpu.cuda import CudaError, choose_build
    from modelyard.operations.diff import compare, observed
    from modelyard.operations.drill import DrillError, drill
    from modelyard.operations.releases import RollbackError, way_back
    from modelyard.operations.releases import render as render_releases
    from modelyard.operations.status import render as render_status
    from modelyard.operations.status import status
    from modelyard.output.render import render_changes
    from modelyard.output.systemd import fill_words, systemd_word
except ImportError as error:
    IMPORT_ERROR: ImportError | None = error
else:
    IMPORT_ERROR = None


def litellm_config(
    catalogue: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
    addresses: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    gateway_host: str | None = None,
) -> dict[str, Any]:
    """The gateway's document for one gateway host. Raises AnsibleFilterError with every diagnostic."""
    if IMPORT_ERROR is not None:
        raise AnsibleFilterError(f"{IMPORT_ERROR}. Run `make env`, then use .venv/bin/ansible-playbook.")
    for name, value in (("the catalogue", catalogue), ("groups", groups), ("addresses", addresses or {})):
        if not isinstance(value, Mapping):
            raise AnsibleFilterError(f"{name} must be a mapping, not {type(value).__name__}")
    document, diagnostics = compile_document(
        catalogue,
        plain(groups),
        plain(addresses or {}),
        frozenset(plain(list(secrets))),
        gateway_host,
        ansible_origin,
    )
    errors = [diagnostic.render() for diagnostic in diagnostics if diagnostic.severity == "error"]
    if errors:
        raise AnsibleFilterError("\n".join([f"the catalogue has {len(errors)} error(s)", *errors]))
    return document


def litellm_model_list(*args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """`model_list` of the document. Arguments and errors as litellm_config."""
    return litellm_config(*args, **kwargs)["model_list"]


def litellm_fallbacks(*args: Any, **kwargs: Any) -> list[dict[str, list[str]]]:
    """The flat chains of the document. Arguments and errors as litellm_config."""
    return litellm_config(*args, **kwargs)["router_settings"]["fallbacks"]


def modelyard_changes(plans: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    """What would change on every host of `plans`, as text; `results` are those of modelyard_live by host."""
    return render_changes(compare(plain(plans), {host: observed(result) for host, result in plain(results).items()}))


def modelyard_drill(
    compiled: Mapping[str, Any], fault: str, model: str, environment: str, confirmed: bool
) -> dict[str, Any]:
    """What a fault means for the compiled plans: fault, model, shell, units by host. Raises AnsibleFilterError."""
    plans, models = plain(compiled["plans"]), plain(compiled["local_chat_models"])
    try:
        return asdict(drill(plans, models, str(fault), str(model), str(environment), bool(confirmed)))
    except DrillError as error:
        raise AnsibleFilterError(str(error)) from error


def modelyard_releases(results: Mapping[str, Any], now: int) -> str:
    """What is live and what can be gone back to, as text; `results` are those of modelyard_live with `history`."""
    return render_releases({host: _history(result) for host, result in plain(results).items()}, int(now))


def modelyard_way_back(results: Mapping[str, Any], service: str = "", release: str = "") -> list[dict[str, Any]]:
    """The steps of a rollback: host, service, release (null: it goes away), stage, and text that says so.

    Hosts that could not be asked have no steps. Raises AnsibleFilterError where there is no way back.
    """
    histories = {host: _history(result) for host, result in plain(results).items()}
    try:
        steps = way_back({host: one for host, one in histories.items() if not isinstance(one, str)}, service, release)
    except RollbackError as error:
        raise AnsibleFilterError(str(error)) from error
    return [
        {"host": step.host, "service": step.service, "release": step.release, "stage": step.stage, "text": str(step)}
        for step in steps
    ]


def _history(result: Mapping[str, Any]) -> Any:
    return result["history"] if "history" in result else observed(result)


def modelyard_status(
    plans: Mapping[str, Any] | None, lives: Mapping[str, Any], founds: Mapping[str, Any]
) -> dict[str, Any]:
    """How everything is, from the compiled plans (none: the catalogue has errors) and what the hosts said, by host."""
    live = {host: observed(result) for host, result in plain(lives).items()}
    found = {
        host: result if "services" in result else live[host] if isinstance(live[host], str) else str(result.get("msg"))
        for host, result in plain(founds).items()
    }
    return status(plain(plans) if plans else None, live, found)


def modelyard_fill_words(words: Sequence[str], given: Mapping[str, Sequence[str]]) -> list[str]:
    """The command line of a plan's instance with placeholders replaced by the words that `given` has for them."""
    return fill_words(plain(words), plain(given))


def modelyard_systemd_word(word: object) -> str:
    """A word of a unit's command line, quoted as systemd wants it. Numbers are words too."""
    return systemd_word(str(word))


def modelyard_cuda_build(facts: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """What decides the bytes of an engine's build, from the facts of modelyard_gpu_facts."""
    try:
        return choose_build(facts=plain(facts), **plain(options))
    except CudaError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name: function."""
        return {
            "litellm_config": litellm_config,
            "litellm_model_list": litellm_model_list,
            "litellm_fallbacks": litellm_fallbacks,
            "modelyard_changes": modelyard_changes,
            "modelyard_cuda_build": modelyard_cuda_build,
            "modelyard_drill": modelyard_drill,
            "modelyard_fill_words": modelyard_fill_words,
            "modelyard_releases": modelyard_releases,
            "modelyard_status": modelyard_status,
            "modelyard_status_text": lambda found: render_status(plain(found)),
            "modelyard_systemd_word": modelyard_systemd_word,
            "modelyard_way_back": modelyard_way_back,
        }
