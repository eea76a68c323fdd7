"""Documentation of the action plugin modelyard_compile, which runs on the controller alone."""

DOCUMENTATION = r"""
module: modelyard_compile
short_description: Compile the catalogue of the whole inventory into one plan per host
version_added: "0.1.0"
author: Modelyard
description:
  - Reads the C(llm_*) variables of every host in the group C(llm_stack), merges the overrides,
    checks the catalogue and compiles it into one plan per host, the gateway's configuration
    included.
  - Runs on the controller and contacts no host. Needs no facts. Works in check mode, where it does
    the same.
  - With errors it fails and prints all of them as C(FILE:LINE:COLUMN), severity, code and message,
    with the path in the catalogue and a hint. Every code is explained in C(docs/diagnostics.md).
  - What it compiles is the whole inventory's, whatever C(--limit) says. Use it with
    O(ignore:run_once).
  - "Variables it reads: C(llm_providers), C(llm_routing), C(llm_gateway), C(llm_versions),
    C(llm_overrides_*), C(llm_overrides), C(llm_secrets) (names only) and, per host,
    C(llm_address) and C(llm_gpus)."
  - Every C(llm_*) variable of the inventory that applies to no host of C(llm_stack) is an error
    that names the place that wins.
  - A secret counts as defined if it is a key of C(llm_secrets), a variable of the environment, or a
    file in C(.credentials/) beside the inventory.
  - With C(-e llm_report=PATH) all diagnostics are also written to PATH on the controller as JSON,
    an empty list if there are none. A relative PATH begins where the command is run.
  - With C(-e llm_graph=PATH) the fallbacks are written to PATH on the controller as a Mermaid
    flowchart, for Markdown in a fence if PATH ends in C(.md).
options:
  operation:
    description:
      - V(compile) compiles the catalogue as it is.
      - V(switch) compiles what it becomes when O(model) of O(provider) is chosen. Nothing is chosen
        by that; C(playbooks/switch_model.yml) carries it out.
      - V(upgrade) compiles what it becomes with O(version) of O(component), for
        C(playbooks/upgrade.yml).
      - V(rotate) compiles the plans of the time in which O(secret) gets another value, for
        C(playbooks/rotate_secrets.yml).
      - Arguments of another operation are refused.
    type: str
    choices: [compile, switch, upgrade, rotate]
    default: compile
  provider:
    description: The provider whose O(model) shall run, instead of its other models and of its
      exclusive group's. Required for V(switch).
    type: str
  model:
    description: Public name of a model of O(provider). Required for V(switch).
    type: str
  component:
    description: A key of C(llm_versions). Required for V(upgrade).
    type: str
  version:
    description: The version of O(component) that shall run. Required for V(upgrade).
    type: str
  source:
    description: The source of O(version), as in C(llm_versions); by default where the catalogue
      says. For V(upgrade).
    type: dict
  secret:
    description: Name of a secret that can be rotated. Required for V(rotate).
    type: str
requirements:
  - modelyard (this project's package, C(make env) installs it)
  - pydantic >= 2.14
extends_documentation_fragment: [modelyard_unchanging]
"""

EXAMPLES = r"""
# 1. As playbooks/validate.yml does.
- name: Compile the catalogue
  modelyard_compile:
  register: modelyard_compiled
  run_once: true

# 2. A role gets the plan of its host, and nothing else.
- name: Redis
  ansible.builtin.include_role:
    name: redis
  vars:
    redis_plan: "{{ modelyard_compiled.plans[inventory_hostname].redis }}"
  when: modelyard_compiled.plans[inventory_hostname].redis is not none
"""

RETURN = r"""
plans:
  description: By host, what runs there. The shape is in C(docs/plan.md).
  returned: success
  type: dict
engine_roles:
  description: The roles of all engines, whether a host has them or not. Their services are named
    after them, with C(-) for C(_) and followed by C(@) and the instance.
  returned: success
  type: list
  elements: str
public_names:
  description: What C(/v1/models) of the gateway must say, exactly.
  returned: success
  type: list
  elements: str
routes:
  description: By public name, the order of attempts (C(model), C(provider), C(where)) and the steps
    left out.
  returned: success
  type: list
  elements: dict
pools:
  description: By process of an engine, which hosts share its requests (C(name), C(provider),
    C(models), C(hosts)), how many each gets at once from one gateway (C(max_parallel)), and for how
    long a request waits (C(queue_s)).
  returned: success
  type: list
  elements: dict
left_out:
  description: What is left out (C(kind), C(name), C(reason), C(models), C(origin)).
  returned: success
  type: list
  elements: dict
local_chat_models:
  description: Public names of chat models that run on hosts of the inventory.
  returned: success
  type: list
  elements: str
warnings:
  description: Rendered warnings.
  returned: success
  type: list
  elements: str
report:
  description: All diagnostics as data (C(code), C(severity), C(message), C(hint), C(path),
    C(origin), C(file), C(line), C(column)).
  returned: success
  type: list
  elements: dict
summary:
  description: A few lines of text.
  returned: success
  type: str
text:
  description: The whole plan as text.
  returned: success
  type: str
away:
  description: The same results for the time of a switch, in which the providers concerned get no
    requests.
  returned: with O(operation=switch) and O(operation=rotate)
  type: dict
rotation:
  description: What the secret is (C(kind), V(gateway), V(redis) or V(engine)), and of an engine's
    key C(hosts), the
    engine's, and C(uncovered), names that no model answers meanwhile.
  returned: with O(operation=rotate)
  type: dict
upgrade:
  description: The version. C(overrides) are the variables that choose it, C(former) is the one
    before,
    C(hosts) are those whose plan changes.
  returned: with O(operation=upgrade)
  type: dict
switch:
  description: The choice. C(overrides) are the variables that make it, C(hosts) the hosts of the
    providers concerned,
    C(differs) is false if the model runs already, C(uncovered) are names that no model answers
    meanwhile, C(watching) hosts whose exporters or Prometheus change.
  returned: with O(operation=switch)
  type: dict
"""
