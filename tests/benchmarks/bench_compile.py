"""How long compiling takes, beside a plain Jinja template of the same list in the same run. Run by `make bench`.

No test: a benchmark compares and prints, it does not pass or fail.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import yaml

from modelyard.compiler import Host, Inventory, compile_inventory

VERSIONS = Path(__file__).parents[2] / "group_vars/all/versions.yml"

TEMPLATE = jinja2.Environment(autoescape=False).from_string(
    """model_list:
{% for model in models %}
  - model_name: {{ model.name }}
    litellm_params: {model: "openai/{{ model.name }}", api_base: "{{ base }}", api_key: os.environ/KEY, timeout: 600}
    model_info: {id: "local/{{ model.name }}"}
{% endfor %}
router_settings:
  fallbacks:
{% for name, entry in fallbacks.items() if entry.chain is defined %}
    - {{ name }}: {{ entry.chain }}
{% endfor %}
"""
)


def catalogue(size: int) -> dict[str, Any]:
    """A catalogue of `size` models at one outside address, in chains of four."""
    names = [f"model-{number}" for number in range(size)]
    fallbacks = {
        name: {"chain": [names[number + 1]]} if number % 4 < 3 and number + 1 < size else {"terminal": True}
        for number, name in enumerate(names)
    }
    provider = {
        "type": "openai_compatible",
        "base_url": "http://192.0.2.1:8000/v1",
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
    groups = {"all": ["one"], "llm_stack": ["one"], "llm_gateway": ["one"], "llm_redis": ["one"]}
    return Inventory(groups, {"one": Host(variables, "127.0.0.1")}, frozenset({"KEY"}))


def seconds(work: Callable[[], object], runs: int) -> float:
    """The median of `runs` runs, in seconds."""
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Print the table."""
    print(f"{'models':>7} {'compile':>10} {'memory':>10} {'plain template':>15}")
    for size in (10, 100, 1_000, 10_000):
        variables = catalogue(size)
        snapshot = inventory(variables)
        compiled = compile_inventory(snapshot)
        if compiled.errors:
            raise SystemExit(f"the catalogue of the benchmark is refused: {compiled.errors[0]}")
        assert len(compiled.public_names) == size
        runs = 3 if size >= 10_000 else 9
        ours = seconds(lambda snapshot=snapshot: compile_inventory(snapshot), runs)
        template = {
            "models": variables["llm_providers"]["outside"]["models"],
            "fallbacks": variables["llm_routing"]["fallbacks"],
            "base": "http://192.0.2.1:8000/v1",
        }
        plain = seconds(lambda template=template: TEMPLATE.render(**template), runs)
        tracemalloc.start()
        compile_inventory(snapshot)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{size:7} {ours * 1e3:7.1f} ms {peak / 2**20:6.1f} MiB {plain * 1e3:12.1f} ms")


if __name__ == "__main__":
    main()
