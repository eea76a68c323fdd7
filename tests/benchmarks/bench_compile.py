"""What compiling costs and notices, beside a plain Jinja template and the gateway's own validator.
Run by `make bench`.

Each measurement has a fresh process of its own, so that memory is measured alike: the peak of its
resident set. No test: a benchmark compares and prints, it does not pass or fail.
"""

from __future__ import annotations

import copy
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml

from modelyard.compile import compile_inventory
from modelyard.compiler.inventory import Host, Inventory
from modelyard.names import MASTER_KEY

HERE = Path(__file__).resolve().parent
CLONE = HERE.parents[1]
VERSIONS = CLONE / "group_vars/all/versions.yml"

SIZES = (10, 100, 1_000, 10_000)
BUDGETS_S = {1_000: 0.1, 10_000: 1.0}
"""DESIGN.md's budgets for compiling, in seconds, by the number of models."""
VALIDATE_BUDGET_S = 3
VALIDATOR_LIMIT_S = 75
BASE = "http://192.0.2.1:8000/v1"

TEMPLATE = jinja2.Environment(autoescape=False).from_string("""model_list:
{% for provider in providers.values() %}
{% for model in provider.models %}
  - model_name: {{ model.name }}
    litellm_params:
      model: "openai/{{ model.name }}"
      api_base: "{{ provider.base_url }}"
      api_key: os.environ/{{ provider.api_key_env }}
      timeout: {{ model.timeout | default(600) }}
    model_info: {id: "outside/{{ model.name }}"}
{% endfor %}
{% endfor %}
router_settings:
  fallbacks:
{% for name, entry in fallbacks.items() if entry.chain is defined %}
    - {{ name }}: {{ entry.chain }}
{% endfor %}
general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}
""")


# -- the catalogue ---------------------------------------------------------------------------------


def catalogue(size: int) -> dict[str, Any]:
    """A catalogue of `size` models at one outside address, in chains of four."""
    names = [f"model-{number}" for number in range(size)]
    fallbacks = {
        name: (
            {"chain": [names[number + 1]]}
            if number % 4 < 3 and number + 1 < size
            else {"terminal": True}
        )
        for number, name in enumerate(names)
    }
    provider = {
        "type": "openai_compatible",
        "base_url": BASE,
        "api_key_env": "KEY",
        "models": [{"name": name} for name in names],
    }
    return {
        "llm_providers": {"outside": provider},
        "llm_routing": {"fallbacks": fallbacks},
        "llm_gateway": {},
        "llm_versions": yaml.safe_load(VERSIONS.read_text(encoding="utf-8"))["llm_versions"],
    }


def inventory(variables: dict[str, Any]) -> Inventory:
    """One host with the gateway. Redis is left out: the gateway's validator would try to reach
    it."""
    groups = {"all": ["one"], "llm_stack": ["one"], "llm_gateway": ["one"]}
    return Inventory(groups, {"one": Host(variables, "127.0.0.1")}, frozenset({"KEY"}))


def compiled(snapshot: Inventory) -> str:
    """The gateway's document as text. Raises ValueError with the first error if it is refused."""
    found = compile_inventory(snapshot)
    if found.errors:
        raise ValueError(found.errors[0].render())
    return json.dumps(found.plans["one"]["litellm"]["document"], indent=2)


def templated(variables: Mapping[str, Any]) -> str:
    """What the plain template makes of the same variables."""
    return TEMPLATE.render(
        providers=variables["llm_providers"], fallbacks=variables["llm_routing"]["fallbacks"]
    )


FAULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a step that no provider has": (
        lambda c: c["llm_routing"]["fallbacks"].update({"model-0": {"chain": ["modle-1"]}})
    ),
    "a chain that leads back": (
        lambda c: c["llm_routing"]["fallbacks"].update({"model-3": {"chain": ["model-0"]}})
    ),
    "a typo in a key": lambda c: c["llm_providers"]["outside"]["models"][0].update({"timout": 5}),
    "a provider without models": lambda c: c["llm_providers"]["outside"].pop("models"),
    "a number that is text": (
        lambda c: c["llm_providers"]["outside"]["models"][0].update({"timeout": "1 min"})
    ),
    "a model without a name": lambda c: c["llm_providers"]["outside"]["models"][0].pop("name"),
    "a name that YAML reads otherwise": (
        lambda c: c["llm_providers"]["outside"]["models"][0].update({"name": "a: b"})
    ),
    "a secret that nobody set": (
        lambda c: c["llm_providers"]["outside"].update({"api_key_env": "OTHER_KEY"})
    ),
}
"""Each breaks a catalogue of ten models in one way."""


# -- one measurement, in a process of its own ------------------------------------------------------


def measure(tool: str, size: int, started: float) -> dict[str, float]:
    """Do the work of one tool and say what it took. `started` is when the process was asked for
    (monotonic clock).

    The work alone is the CPU time of the median run: it computes and waits for nothing, and other
    programs on the machine hardly change it. The first run counts for memory and for the whole
    process.
    """
    variables = catalogue(size)
    snapshot = inventory(variables)
    tools: dict[str, Callable[[], str]] = {
        "compile": lambda: compiled(snapshot),
        "template": lambda: templated(variables),
    }
    work = tools[tool]
    before = peak_mib()
    taken = []
    whole = peak = 0.0
    for run in range(3 if size >= 10_000 else 9):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
        if run == 0:
            whole = time.monotonic() - started
            peak = peak_mib()
    return {"work": statistics.median(taken), "whole": whole, "peak": peak, "before": before}


def peak_mib() -> float:
    """The most memory this process ever had in RAM. (`ru_maxrss` is at least its parent's.)"""
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) / 1024


def asked(
    command: list[str], variables: Mapping[str, str] | None = None, limit_s: float = 120
) -> Any:
    """What a process prints as JSON; it gets the time of its start as its last argument. None if it
    takes too long.

    Raises subprocess.CalledProcessError.
    """
    try:
        printed = subprocess.run(
            [*command, str(time.monotonic())],
            env=dict(variables) if variables is not None else None,
            capture_output=True,
            text=True,
            check=True,
            timeout=limit_s,
        ).stdout
    except subprocess.TimeoutExpired:
        return None
    return json.loads(printed.splitlines()[-1])


# -- the table -------------------------------------------------------------------------------------


def print_row(size: int, name: str, found: Mapping[str, float] | None, remark: str = "") -> None:
    if found is None:
        print(f"{size:7,} {name:24} not done after {VALIDATOR_LIMIT_S} s: stopped")
        return
    memory = f"{found['peak']:.0f} (+{found['peak'] - found['before']:.0f})"
    row = (
        f"{size:7,} {name:24} {found['work'] * 1e3:9.1f} {found['whole']:9.2f} {memory:>12} "
        f" {remark}"
    )
    print(row.rstrip(), flush=True)


def validator(environment: Path, directory: Path) -> tuple[list[str], dict[str, str]]:
    """The command that validates files with the gateway's own validator, and its variables."""
    variables = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(directory),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
        MASTER_KEY: "sk-bench",
        "KEY": "sk-bench",
    }
    return [str(environment / "bin/python"), str(HERE / "validator.py")], variables


def without_guard(text: str) -> str:
    """A document without the functions of our guard, which the validator would import: they need a
    release around them.
    """
    document = yaml.safe_load(text)
    general = document["general_settings"]
    document["general_settings"] = {
        name: value for name, value in general.items() if not name.startswith("custom_")
    }
    return json.dumps(document)


def compare_speed(environment: Path, directory: Path) -> None:
    """Print what each of the three takes for each size."""
    command, variables = validator(environment, directory)
    print(f"{'models':>7} {'':24} {'CPU ms':>9} {'whole, s':>9} {'peak MiB':>12}")
    for size in SIZES:
        for tool, name in (("compile", "compile"), ("template", "plain Jinja template")):
            found = asked([sys.executable, __file__, tool, str(size)])
            budget = BUDGETS_S.get(size) if tool == "compile" else None
            met = budget and ("met" if found["work"] < budget else "MISSED")
            print_row(size, name, found, f"budget {budget * 1e3:.0f} ms: {met}" if budget else "")
        document = directory / f"{size}.yaml"
        document.write_text(without_guard(compiled(inventory(catalogue(size)))))
        print_row(
            size,
            "gateway's own validator",
            asked([*command, str(document)], variables, VALIDATOR_LIMIT_S),
        )


def compare_notice(environment: Path, directory: Path) -> None:
    """Print which faults each of the three notices."""
    rows = {"no fault": (compile_notices(catalogue(10)), *template_notices(catalogue(10)))}
    for fault, plant in FAULTS.items():
        broken = copy.deepcopy(catalogue(10))
        plant(broken)
        rows[fault] = (compile_notices(broken), *template_notices(broken))
    files = []
    for number, (_compile, _template, text) in enumerate(rows.values()):
        files.append(directory / f"fault-{number}.yaml")
        files[-1].write_text(text)
    command, variables = validator(environment, directory)
    accepted = asked([*command, *map(str, files)], variables)["accepted"]
    print(f"{'planted fault':33} {'compile':>10} {'template':>10} {'validator':>10}")
    for (fault, (compile_sees, template_sees, _text)), passes in zip(
        rows.items(), accepted, strict=True
    ):
        seen = [
            "noticed" if notice else "-" for notice in (compile_sees, template_sees, not passes)
        ]
        print(f"{fault:33} {seen[0]:>10} {seen[1]:>10} {seen[2]:>10}")


def compile_notices(variables: dict[str, Any]) -> bool:
    """Whether the compiler refuses it."""
    return bool(compile_inventory(inventory(variables)).errors)


def template_notices(variables: dict[str, Any]) -> tuple[bool, str]:
    """Whether the template fails; what it makes of it otherwise."""
    try:
        return False, templated(variables)
    except jinja2.TemplateError:
        return True, ""


def playbook_seconds() -> float:
    """How long validating the shipped catalogue takes as a user does it: the median of three."""
    command = [
        str(Path(sys.executable).parent / "ansible-playbook"),
        "playbooks/validate.yml",
        "-i",
        "inventories/lab",
    ]
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run(command, cwd=CLONE, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main() -> None:
    """Print the tables."""
    if sys.argv[1:]:
        tool, size, started = sys.argv[1:]
        print(json.dumps(measure(tool, int(size), float(started))))
        return
    sys.path.insert(0, str(CLONE / "tests/gateway"))
    import harness

    begun = time.monotonic()
    environment = harness.environment()
    print(
        "From the catalogue to the gateway's document as text; the validator reads the document"
        " that we emit."
    )
    print(
        "CPU: of the work. Whole: elapsed, with the start of Python and all imports. Peak memory of"
        " the process, and"
    )
    print("what the work added to it.\n")
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as directory:
        compare_speed(environment, Path(directory))
        print(
            "\nWho notices what, before anything runs; the validator reads what the template"
            " made:\n"
        )
        compare_notice(environment, Path(directory))
    taken = playbook_seconds()
    met = "met" if taken < VALIDATE_BUDGET_S else "MISSED"
    print(
        f"\nplaybooks/validate.yml, the lab's inventory: {taken:.2f} s (budget {VALIDATE_BUDGET_S}"
        f" s: {met})"
    )
    print(f"({time.monotonic() - begun:.0f} s)")


if __name__ == "__main__":
    main()
