#!/usr/bin/python
"""Look at a host before anything on it is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: modelyard_preflight
short_description: Refuse a host that cannot run the planned services
description:
  - "Checks in one call: the distribution, systemd as the first process, free disk space, that the
    port of every
    planned listener is free or held by the very unit that is planned there, also after the next
    boot, and that the
    planned models fit on the GPUs that the host really has."
  - All problems are reported at once. Nothing is ever changed.
  - "Models that name no GPUs are placed here, in the order of the plan: on the first GPU that has
    room for them beside
    the other models of the plan. Memory of programs that are not ours never decides where, only
    whether: a placement
    that followed it would change from run to run."
options:
  services:
    description:
      - The planned listeners, C(services) of the host's compiled plan. Each has C(service),
        C(unit),
        C(address), C(port) and C(variable), the setting that moves it.
    type: list
    elements: dict
    default: []
  free_mib:
    description: Free space that is needed below each path, in MiB. Paths on one file system are
      added up, and what
      C(modelyard_base) is about to delete counts as free.
    type: dict
    default: {/opt: 3072, /var/lib: 1024}
  public_names:
    description:
      - Public names of the plan, whichever gateway serves them. A name that is live on the host and
        not among them is a
        problem, because every client that asks for it would be refused. Empty where that is not to
        be asked.
    type: list
    elements: str
    default: []
  allow_removal:
    description: Whether live public names may be removed.
    type: bool
    default: false
  engines:
    description:
      - The models of the engines on this host, C(demands) of its plan, in the plan's order. Entries
        with the same
        C(service) are served by one process (Ollama). An adapter is no entry. The GPUs are asked
        for only if there is
        an entry.
    type: list
    elements: dict
    default: []
    suboptions:
      service:
        description: The service that serves it, C(llama-cpp@SLUG) for example.
        type: str
        required: true
      model:
        description: Its public name.
        type: str
        required: true
      role:
        description: The engine's role.
        type: str
        required: true
      gpu:
        description: Whether this engine's build can use GPUs. Of one that cannot, nothing is placed
          or checked.
        type: bool
        default: true
      gpus:
        description:
          - The GPUs it was given, by index or UUID, be it in the catalogue or by the compiler from
            C(llm_gpus). Empty
            if it was given none. All entries of one process have the same.
        type: list
        elements: raw
        default: []
      vram_mib:
        description: GPU memory it needs, as declared. Null has it estimated, where that is
          possible.
        type: int
      source:
        description:
          - "Where its file comes from, as in the plan: C({path}), C({url, sha256}), C({repo,
            revision, file}), or null.
            A GGUF file that is on the host already is estimated from its header."
        type: dict
      context_length:
        description:
          - Tokens of context that the process is started with, null for the engine's own default.
            Of an engine that
            keeps one for each of several requests at once, this is the context of one request times
            their number.
        type: int
      slots:
        description: How many requests share O(engines[].context_length).
        type: int
        default: 1
      contexts:
        description:
          - The engine's own default context where it depends on memory, as C([[MiB, tokens], ...]),
            the largest memory
            first. The first entry counts whose memory all its GPUs have together. Empty if it is
            the model's.
        type: list
        elements: list
        default: []
      unestimated:
        description: Why the memory it needs cannot be estimated from its file, null if it can.
        type: str
      options:
        description:
          - C(options) of the model in the catalogue. Some change what is estimated
            (C(cache-type-k)), some make an
            estimate impossible (C(n-gpu-layers), C(override-tensor)).
        type: dict
        default: {}
      share:
        description: The part of each GPU's memory that its process reserves, whatever its model
          needs. Null if it takes what its models need.
        type: float
      width:
        description: How many GPUs its process uses. Null for as many as it was given, or one.
        type: int
      max_loaded:
        description:
          - How many of its models the process holds at once, of which this many of the largest are
            added up. Null is
            all of them.
        type: int
  hugging_face_endpoint:
    description: Where repositories of models are. With O(engines[].source) it determines where a
      fetched file is.
    type: str
    default: https://huggingface.co
  declared_gpus:
    description:
      - C(gpus) of the plan, what C(llm_gpus) declares. Where it is not empty, a host whose GPUs
        differ (number, UUID,
        memory by more than 5 %) is a problem.
    type: list
    elements: dict
    default: []
  question:
    description:
      - What site.yml asks besides, to run only the roles that have something to do. The action
        plugin makes of the C(plan) of the host and the digest of the bundle's C(code) what the
        module is given (O(question.roles), what each role looks at on the host, and O(question.base),
        what role base wants).
      - With C(full) every role is due. Only site.yml asks.
    type: dict
    suboptions:
      plan: {description: "The whole plan of the host.", type: dict}
      code: {description: "Digest of the bundle's code, of M(modelyard_compile).", type: str}
      full: {description: Whether every role is due., type: bool, default: false}
      roles: {description: Set by the action plugin., type: dict}
      base: {description: Set by the action plugin., type: dict}
  lock:
    description:
      - Whether to take the lock of the host in the same call, as M(modelyard_lock) does with
        C(where=host). If another run has it, RV(refused) is all that is returned.
    type: bool
    default: false
extends_documentation_fragment: [modelyard_unchanging]
author: Modelyard
"""

EXAMPLES = r"""
- name: Host can take the planned services
  modelyard_preflight:
    services: "{{ plan.services }}"
    engines: "{{ plan.demands }}"
    declared_gpus: "{{ plan.gpus }}"
    free_mib: {/opt: 2048, /var/lib: 1024}
  register: preflight

- name: Engine gets the GPUs that were found
  ansible.builtin.include_role:
    name: llama_cpp
  vars:
    engine_plan: "{{ plan.engines | selectattr('role', 'equalto', 'llama_cpp') | first }}"
    engine_placed_gpus: "{{ preflight.placed }}"
    engine_host_gpus: "{{ preflight.gpus }}"

- name: What preflight wants to know of a model
  modelyard_preflight:
    engines:
      - service: llama-cpp@small
        model: small
        role: llama_cpp
        gpu: true
        gpus: []
        vram_mib: null
        source: {path: /srv/models/small.gguf}
        context_length: 8192
        options: {}
        max_loaded: null
"""

RETURN = r"""
problems:
  description: Problems, each with its likely fix. The task fails if there is any.
  type: list
  elements: str
  returned: always
os:
  description: Distribution and version.
  type: str
  returned: always
gpus:
  description: What M(modelyard_gpu_facts) returns; C(processes) have their C(unit), too. Without
    any engine nothing is
    asked, and C(reason) says so.
  type: dict
  returned: always
placed:
  description:
    - GPUs found for processes that were given none, by service. Only where the host has GPUs and
      the need is declared
      or was estimated from a file at a C(path). A file that is downloaded is there in the second
      run only, so it is
      checked then, but the process is left the choice that it had in the first.
  type: dict
  returned: always
  sample: {llama-cpp@small: [0]}
estimates:
  description:
    - Need of GPU memory of the models that do not declare theirs, on a host with GPUs. C(mib) is
      null where it cannot
      be told. C(how) is the arithmetic, or the reason.
  type: list
  elements: dict
  returned: always
  sample:
    - service: llama-cpp@small
      model: small
      mib: 6144
      how: "estimate: 4403 weights + 1024 cache for 8192 tokens + 717 for computing"
refused:
  description: Who has the lock of the host. The task does not fail then.
  type: str
  returned: with O(lock), if another run has it
asked:
  description:
    - What has to run on this host. C(roles) are the roles that are due, C(why) says the reasons of
      each, C(stages) are the parts of site.yml that have them (V(any) if there is one). C(services)
      are those that are on the host, C(salts) what the records of roles were made with.
  type: dict
  returned: with O(question)
notices:
  description: What could not be checked, and why. Shown as warnings.
  type: list
  elements: str
  returned: always
gpu_table:
  description: The GPUs with the models on them, as text that is shown. Empty on a host without GPUs
    or engines.
  type: list
  elements: str
  returned: always
"""

import json
import os
import time
from typing import Any

from ansible.module_utils.modelyard_gpu_demands import gpu_facts, headers
from ansible.module_utils.modelyard_gpus import find
from ansible.module_utils.modelyard_host import ServiceError, read_text
from ansible.module_utils.modelyard_host_lock import take
from ansible.module_utils.modelyard_module import new_module
from ansible.module_utils.modelyard_prepared import absent_programs, prepared
from ansible.module_utils.modelyard_services import public_names
from ansible.module_utils.modelyard_services import services as services_there
from ansible.module_utils.modelyard_sockets import (
    Holder,
    Listener,
    clashes,
    holders,
    listeners,
    normalise,
)
from ansible.module_utils.modelyard_store import size_of, unneeded
from ansible.module_utils.modelyard_units import one_look, unit_state
from ansible.module_utils.modelyard_watch import changed_since, read_record, system

SUPPORTED = {"debian": ["12", "13"], "ubuntu": ["22.04", "24.04"]}
FOREIGN = {
    "redis": ("redis-server.service", 6379),
    "grafana": ("grafana-server.service", 3000),
}
"""By our service, the unit that the program's own package makes, and its port. Of engines the plan
says it (`foreign` of the service). The package of HAProxy sets up no port."""
LEAVE_LAST = ("redis", "litellm", "haproxy", "prometheus", "alertmanager", "grafana")
"""Our services that a run takes away only after those of the plan have started."""


def os_release(path: str = "/etc/os-release") -> tuple[str, str]:
    """Return the distribution's ID and version, empty strings where the file says nothing."""
    fields = {}
    try:
        with open(path, encoding="utf-8") as handle:
            for line in handle:
                key, found, value = line.strip().partition("=")
                if found:
                    fields[key] = value.strip("\"'")
    except OSError:
        pass
    return fields.get("ID", ""), fields.get("VERSION_ID", "")


def os_problems(identifier: str, version: str) -> list[str]:
    """Say whether the distribution is one of those that the bundle knows."""
    if version in SUPPORTED.get(identifier, []):
        return []
    known = ", ".join(f"{name} {' and '.join(versions)}" for name, versions in SUPPORTED.items())
    return [
        f"unsupported system: {identifier or 'unknown'} {version or ''}".rstrip()
        + f"; supported: {known}"
    ]


def systemd_problems(proc: str = "/proc") -> list[str]:
    """Say whether systemd is the first process: every service is a unit of it."""
    try:
        with open(os.path.join(proc, "1/comm"), encoding="utf-8") as handle:
            first = handle.read().strip()
    except OSError as error:
        first = f"unknown ({error.strerror})"
    if first == "systemd":
        return []
    return [
        f"process 1 is {first}, not systemd: services cannot be started here (in a container, make"
        " systemd its init)"
    ]


def disk_problems(needed: dict[str, int]) -> list[str]:
    """Compare the free space with what is needed (MiB), per file system: paths on one share its
    space.

    What role base is about to delete counts as free: a host that is full of it could not be helped
    otherwise. Raises ServiceError.
    """
    by_device: dict[int, list[str]] = {}
    free: dict[int, int] = {}
    for path in sorted(needed):
        existing = path
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        device = os.stat(existing).st_dev
        state = os.statvfs(existing)
        by_device.setdefault(device, []).append(path)
        free[device] = state.f_bavail * state.f_frsize // 2**20
    problems = []
    for device, paths in by_device.items():
        wanted = sum(int(needed[path]) for path in paths)
        if free[device] < wanted:
            soon = [path for path in unneeded(time.time()) if os.stat(path).st_dev == device]
            free[device] += sum(map(size_of, soon)) // 2**20
        if free[device] < wanted:
            problems.append(
                f"{' and '.join(paths)}: {free[device]} MiB are free, {wanted} MiB are needed; "
                "free some space or mount a larger disk there"
            )
    return problems


def port_problems(
    services: list[dict[str, Any]], found: list[Listener], who: dict[str, Holder]
) -> list[str]:
    """Say for every planned listener who else is in its place.

    An engine of ours that the plan no longer contains (a renamed model, say) is not in the way: it
    makes room.
    """
    problems = []
    planned_units = {planned["unit"] for planned in services}
    for planned in services:
        address, port = normalise(planned["address"]), int(planned["port"])
        seen = set()
        for listener in found:
            if listener.port != port or not clashes(address, listener):
                continue
            holder = who.get(listener.inode, Holder("", "", 0))
            if holder.unit == planned["unit"] or holder in seen:
                continue
            ours = holder.unit.startswith("modelyard-")
            if ours and holder.unit not in planned_units and kind(holder.unit) not in LEAVE_LAST:
                continue
            seen.add(holder)
            place = f"{planned['service']}: {address} port {port} is taken by {holder}"
            if ours:
                which = (
                    "another service of this plan"
                    if holder.unit in planned_units
                    else "a service of Modelyard that leaves this host"
                )
                command = f"systemctl disable --now {holder.unit}"
                fix = f"It is {which}, which must release the port first: run `{command}`"
            else:
                fix = "Modelyard did not install it and leaves it alone: stop it yourself"
                if holder.unit:
                    fix += f" (`systemctl disable --now {holder.unit}`)"
            more = "" if ours else adoption(planned, holder.program)
            problems.append(
                f"{place}. {fix}, or choose another port with {planned['variable']}{more}"
            )
    return problems


def kind(name: str) -> str:
    """Return the service that a unit of ours, or an instance, is of: `vllm` for
    `modelyard-vllm@coder.service`.
    """
    return name.removeprefix("modelyard-").removesuffix(".service").partition("@")[0]


def foreign(planned: dict[str, Any]) -> tuple[str, int] | None:
    """Return the unit and the port of the same program as others set it up; None if that is not
    known.
    """
    told = planned.get("foreign")
    return (told["unit"], told["port"]) if told else FOREIGN.get(kind(planned["service"]))


def adoption(planned: dict[str, Any], program: str | None = None) -> str:
    """Say how an engine takes over from its own program as others set it up; empty if there is
    nothing to say.

    `program` is what holds the port, if something does.
    """
    told = planned.get("foreign") or {}
    return (
        f". {told['adoption']}"
        if told.get("adoption") and program in (None, told["program"])
        else ""
    )


def boot_problems(services: list[dict[str, Any]], states: dict[str, dict[str, str]]) -> list[str]:
    """Say which units that are not ours are stopped now and would take a planned port at the next
    boot.

    `states` is what systemd says of the units of `foreign`. One that is set up for another port
    cannot be told from here, so only its usual port counts.
    """
    problems: dict[str, str] = {}
    for planned in services:
        unit, usual = foreign(planned) or ("", 0)
        state = states.get(unit, {})
        if int(planned["port"]) != usual or state.get("UnitFileState") != "enabled":
            continue
        if state.get("ActiveState") in ("inactive", "failed"):
            problems[planned["service"]] = (
                f"{planned['service']}: {unit} is stopped, but enabled: at the next boot it may "
                f"take port {usual} before ours does. Modelyard did not install it and leaves it "
                f"alone: `systemctl disable {unit}` yourself, or choose another port with "
                f"{planned['variable']}{adoption(planned)}"
            )
    return list(problems.values())


def removal_problems(planned: list[str], live: dict[str, Any] | None) -> list[str]:
    """Say which public names are live (`live` is the manifest of the gateway's live release) and
    planned nowhere.
    """
    if not planned or live is None:
        return []
    gone = sorted(set(public_names(live)) - set(planned))
    if not gone:
        return []
    return [
        f"litellm: public names that are live and missing from the plan: {', '.join(gone)}. "
        "Requests for them would be refused. Restore them in the catalogue, or confirm the "
        "removal: -e llm_allow_removal=true"
    ]


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Say of every role of the plan what is not as it left it, and what role base would change."""
    base, roles = question["base"], question["roles"]
    with one_look(["modelyard.target", *question["units"]]):
        try:
            changes = prepared(base, check_mode=True)
        except (ServiceError, OSError) as error:
            changes = [str(error)]
        changes += [f"{name} is not installed" for name in absent_programs(base["programs"])]
        records = {role: read_record(role) for role in roles}
        found = {
            role: {
                "salt": records[role].get("salt", ""),
                "digest": records[role].get("digest", ""),
                "differs": changed_since(records[role], watch),
            }
            for role, watch in roles.items()
        }
    return {"base": changes, "roles": found, "services": services_there(), "system": system()}


def main() -> None:
    """Run the module. It returns what it sees; the action beside it judges the GPUs, and fails."""
    module = new_module(
        argument_spec={
            "services": {"type": "list", "elements": "dict", "default": []},
            "free_mib": {"type": "dict", "default": {"/opt": 3072, "/var/lib": 1024}},
            "public_names": {"type": "list", "elements": "str", "default": []},
            "allow_removal": {"type": "bool", "default": False},
            "engines": {"type": "list", "elements": "dict", "default": []},
            "hugging_face_endpoint": {"type": "str", "default": "https://huggingface.co"},
            "declared_gpus": {"type": "list", "elements": "dict", "default": []},
            "question": {"type": "dict"},
            "lock": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    if lock := module.params["lock"]:
        try:
            owner = take(lock["mine"], lock["over"], look=module.check_mode)
        except OSError as error:
            module.fail_json(msg=f"the lock of the host cannot be written: {error}")
        if owner:
            module.exit_json(changed=False, owner=owner)
    services, engines = module.params["services"], module.params["engines"]
    identifier, version = os_release()
    ports = {int(planned["port"]) for planned in services}
    found = [listener for listener in listeners() if listener.port in ports]
    no_systemd = systemd_problems()
    others = {unit for unit, _port in filter(None, map(foreign, services))}
    states = {unit: unit_state(unit) for unit in others if not no_systemd}
    problems = [
        *os_problems(identifier, version),
        *no_systemd,
        *disk_problems(module.params["free_mib"]),
        *port_problems(services, found, holders({listener.inode for listener in found})),
        *boot_problems(services, states),
    ]
    if not module.params["allow_removal"]:
        manifest = read_text("/opt/modelyard/services/litellm/current/manifest.json")
        problems += removal_problems(
            module.params["public_names"], json.loads(manifest) if manifest else None
        )
    facts: dict[str, Any] = {
        "gpus": [],
        "driver_version": None,
        "cuda_version": None,
        "reason": "no engine runs on this host",
    }
    if engines:
        facts = gpu_facts(find(module.get_bin_path))
    more = {}
    if module.params["question"] is not None and not no_systemd:
        more["answer"] = answer(module.params["question"])
    module.exit_json(
        changed=False,
        **more,
        os=f"{identifier} {version}",
        problems=problems,
        gpus=facts,
        models=headers(engines, module.params["hugging_face_endpoint"]) if facts["gpus"] else [],
    )


if __name__ == "__main__":
    main()
