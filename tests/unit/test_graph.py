"""The Mermaid graph says what the routes say.

docs/images/shipped.mmd is the graph of the shipped catalogue, docs/images/shipped.svg its picture.
When the test of the first fails because the catalogue or the graph changed, write both anew; the
drawing tool is no part of this project:

    PYTHONPATH=tests/unit .venv/bin/python -c 'import test_graph; test_graph.write_shipped()'
    cd docs/images
    mmdc -i shipped.mmd -o shipped.svg -b white -c config.json -p browser.json
    echo "<!-- of shipped.mmd, sha256 $(sha256sum < shipped.mmd | cut -d' ' -f1) -->" >> shipped.svg

`mmdc` is the npm package @mermaid-js/mermaid-cli, installed somewhere else; Debian's chromium will
do for it. config.json is {"theme": "neutral", "htmlLabels": false, "flowchart": {"htmlLabels":
false, "rankSpacing": 38, "nodeSpacing": 25, "padding": 8}}: where an SVG is an image, HTML in it is
not drawn, and less space is larger letters. browser.json is {"executablePath":
"/usr/bin/chromium"}.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from catalogues import CATALOGUE, ROOT, change, compiled
from hypothesis import given
from hypothesis import strategies as st
from test_document import SHIPPED_GROUPS, shipped

from modelyard.compile import Compiled
from modelyard.output.graph import graph_file, render_mermaid

MMD = ROOT / "docs/images/shipped.mmd"


def shipped_graph() -> str:
    groups = {
        **SHIPPED_GROUPS,
        "llm_stack": ["workstation", "gpu1", "gpu2"],
        **{
            group: ["workstation"] for group in ("llm_gateway", "llm_redis", "llm_llama_cpp_native")
        },
        **{group: ["gpu1"] for group in ("llm_ollama", "llm_llama_cpp_python")},
        **{group: ["gpu2"] for group in ("llm_vllm_qwen", "llm_vllm_dolphin")},
    }
    addresses = {"workstation": "192.0.2.10", "gpu1": "192.0.2.11", "gpu2": "192.0.2.12"}
    secrets = frozenset({"OLLAMA_CLOUD_API_KEY"})
    result = compiled(shipped(), groups=groups, addresses=addresses, secrets=secrets)
    assert result.errors == []
    return render_mermaid(result)


def write_shipped() -> None:
    MMD.write_text(shipped_graph(), encoding="utf-8")


def test_the_shipped_graph_is_what_the_code_renders() -> None:
    assert MMD.read_text(encoding="utf-8") == shipped_graph()


def test_the_picture_is_that_of_the_shipped_graph() -> None:
    picture = MMD.with_suffix(".svg").read_text(encoding="utf-8")
    (digest,) = re.findall(r"<!-- of shipped\.mmd, sha256 ([0-9a-f]{64}) -->", picture)
    assert digest == hashlib.sha256(MMD.read_bytes()).hexdigest()
    assert "foreignObject" not in picture
    for label in re.findall(r'n\d+\["(.*)"\]', MMD.read_text(encoding="utf-8")):
        assert f">{label}</tspan>" in picture


def test_hosts_that_share_a_model_stand_with_their_pool() -> None:
    hosts = {"llm_stack": ["one", "two"], "llm_local": ["one", "two"]}
    groups = {**hosts, "llm_gateway": ["one"], "llm_redis": ["one"]}
    addresses = {"one": "192.0.2.1", "two": "192.0.2.2"}
    text = change("port: 8081", "port: 8081\n        max_parallel: 3\n        queue_s: 9")
    graph = render_mermaid(compiled(text, groups=groups, addresses=addresses))
    assert '["local on one, two: 1 at once on each, others wait up to 60 s"]' in graph
    assert '["local on one, two: 3 at once on each, others wait up to 9 s"]' in graph


def test_graph_of_a_small_catalogue() -> None:
    text = change(
        "llm_gateway:",
        "  aliases: {chat: code}\n  capabilities: {code: {models: [small, big-cloud]}, talk:"
        " {models: ['large:7b']}}\nllm_gateway:",
    )
    text = change("small: {chain: [big-cloud]}", "small: {terminal: true}", text)
    assert render_mermaid(compiled(text)).splitlines()[1:] == [
        "flowchart LR",
        '  n3(["code"])',
        '  n4(["talk"])',
        '  n5(["chat"])',
        '  subgraph p0["local on one"]',
        '    n0["small"]',
        '    n1["large:7b"]',
        "  end",
        '  subgraph p1["cloud on api.example.org"]',
        '    n2["big-cloud"]',
        "  end",
        "  n1 -->|1| n0",
        "  n1 -->|2| n2",
        "  n3 -. 1 .-> n0",
        "  n3 -. 2 .-> n2",
        "  n4 -.-> n1",
        "  n5 -. alias .-> n3",
    ]


def test_markdown_gets_a_fence() -> None:
    result = compiled()
    graph = render_mermaid(result)
    assert graph_file(result, "a/graph.md") == f"```mermaid\n{graph}```\n"
    assert graph_file(result, "a/graph.mmd") == graph


def test_names_cannot_break_the_graph() -> None:
    names = [
        "end",
        "a;b",
        "[z]",
        "#35;",
        "&amp;",
        "`c`",
        "%%c",
        "x--o",
        "a|b",
        "$$x$$",
        "(x)",
    ]
    more = "".join(f"      - name: '{name}'\n" for name in names)
    lines = render_mermaid(
        compiled(change("      - name: big-cloud\n", f"      - name: big-cloud\n{more}"))
    ).splitlines()
    labels = [match[1] for line in lines if (match := re.fullmatch(r'    n\d+\["(.*)"\]', line))]
    assert not re.search(r'["<>{}\[\]`%|$&;#]', re.sub(r"#\d+;", "", "".join(labels)))
    decoded = [re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label) for label in labels]
    assert decoded == ["small", "large:7b", "big-cloud", *names]


# -- arrows and orders -----------------------------------------------------------------------------


def walk(result: Compiled) -> dict[str, list[str]]:
    """The order of attempts of every name, read from the graph alone."""
    text = render_mermaid(result)
    names = dict(re.findall(r'(n\d+)\(?\["?(.*?)"\]', text))
    steps: dict[tuple[str, bool], list[str]] = {}
    for source, arrow, target in re.findall(
        r"^  (n\d+) (-.*>(?:\|\d+\|)?) (n\d+)$", text, re.MULTILINE
    ):
        steps.setdefault((names[source], "." in arrow), []).append(names[target])

    def follow(name: str, order: dict[str, None]) -> dict[str, None]:
        if name not in order:
            order.update(dict.fromkeys([name, *steps.get((name, True), [])]))
            for step in steps.get((name, False), []):
                follow(step, order)
        return order

    orders = {name: list(follow(name, {})) for name in names.values()}
    heads = orders["code"][1:]
    orders["code"] = list(
        dict.fromkeys([*heads, *(name for head in heads for name in orders[head])])
    )
    return orders


NAMES = st.sampled_from("abcdef")


@given(
    chains=st.dictionaries(NAMES, st.lists(NAMES, max_size=4, unique=True)),
    default=st.lists(NAMES, max_size=3, unique=True),
    heads=st.lists(NAMES, min_size=1, max_size=3, unique=True),
)
def test_following_the_arrows_gives_the_order_of_attempts(
    chains: dict[str, list[str]], default: list[str], heads: list[str]
) -> None:
    """Chains lead anywhere, back too."""
    written: dict[str, Any] = {
        name: (
            {"chain": steps}
            if (steps := [step for step in chain if step != name])
            else {"terminal": True}
        )
        for name, chain in chains.items()
    }
    result = compiled(
        CATALOGUE,
        llm_overrides={
            "providers": {"cloud": {"models": [{"name": name} for name in "abcdef"]}},
            "routing": {
                "fallbacks": written,
                "default_fallbacks": default,
                "capabilities": {"code": {"models": heads}},
            },
        },
    )
    assert result.errors == [], [diagnostic.render() for diagnostic in result.errors]
    expected = {
        route["name"]: [attempt["model"] for attempt in route["attempts"]]
        for route in result.routes
    }
    assert walk(result) == expected
    if not default and all(step > name for name, chain in chains.items() for step in chain):
        code = list(expected).index("code")
        dotted = re.findall(r"^  n(\d+) -\.", render_mermaid(result), re.MULTILINE)
        assert set(dotted) == {str(code)}, "solid arrows say it all where nothing leads back"
