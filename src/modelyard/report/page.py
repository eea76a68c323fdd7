"""The report as one HTML file that needs nothing else: style, plots and the program that draws them
are in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from modelyard.report.parts import Report, Section, Trace
from modelyard.report.sections import Clock
from modelyard.report.told import Told

PALETTE = ("#2f7fc1", "#d98200", "#1a9a78", "#d1495b", "#8a63c9", "#b05f9c", "#7a8a2b", "#8b6f5c")
"""Readable on light and on dark, and told apart by most people who see colours differently."""

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
)
"""The browser itself sees to it that the page asks for nothing."""

STYLE = """
:root { color-scheme: light dark; --text: #1c2430; --soft: #5b6675; --line: #d5dbe3; --back: #ffffff; --card: #f3f5f8;
  --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ef; --soft: #9aa6b5; --line: #38424f; --back: #12171e;
  --card: #1c232c; --warn: #f0b429; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 68rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 2.5rem 0 0; font-size: 1.2rem; }
p { margin: .3rem 0 .8rem; } .soft { color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
dl div { flex: 1 0 9rem; padding: .6rem .9rem; background: var(--card); border-radius: .5rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.missing { padding: .6rem 1rem; border-left: .3rem solid var(--warn); background: var(--card); }
.missing ul { margin: 0; padding-left: 1.2rem; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: break-word; } thead th { color: var(--soft); font-weight: 600; }
tbody th { font-weight: 500; } .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.empty { padding: .6rem 1rem; background: var(--card); border-radius: .5rem; }
.plot { height: 300px; margin-top: .8rem; }
@media print { :root { --text: #000; --soft: #444; --line: #bbb; --back: #fff; --card: #f3f5f8; --warn: #8a5a00; }
  html { font-size: 11px; } body { padding: 0; max-width: none; font-size: 11px; }
  section, dl div, tr { break-inside: avoid; } .table { overflow: visible; } }
"""

PROGRAM = """
"use strict";
const spec = JSON.parse(document.getElementById("plots").textContent);
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function trace(one) {
  const paint = spec.palette[one.colour % spec.palette.length];
  const base = {name: one.name, x: one.x || spec.x, y: one.y};
  if (one.kind === "bar") return {...base, type: "bar", marker: {color: paint}};
  if (one.kind === "hatched")
    return {...base, type: "bar", marker: {color: paint, pattern: {shape: "/", fgcolor: paint, fillmode: "replace"}}};
  if (one.kind === "span")
    return {...base, type: "scatter", mode: "lines+markers", line: {color: paint, width: 10},
      marker: {color: paint, size: 10, symbol: "square"}, showlegend: false};
  return {...base, type: "scatter", mode: "lines+markers", line: {color: paint, width: 2, dash: one.dash},
    marker: {color: paint, size: 6}};
}
function looks(printed) {
  const text = printed ? "#000" : colour("--text"), line = printed ? "#bbb" : colour("--line");
  return {"font.color": text, "xaxis.gridcolor": line, "yaxis.gridcolor": line, "xaxis.linecolor": line,
    "yaxis.zerolinecolor": line};
}
const drawn = spec.plots.map(plot => {
  const place = document.getElementById(plot.id);
  const rows = new Set(plot.traces.flatMap(one => one.kind === "span" ? one.y : []));
  const height = rows.size ? 90 + 28 * rows.size : 300;
  place.style.height = height + "px";
  const yaxis = rows.size ? {type: "category", autorange: "reversed", automargin: true}
    : {title: {text: plot.unit}, rangemode: "tozero", automargin: true};
  if (plot.percent) Object.assign(yaxis, {tickformat: ".0%", range: [-0.03, 1.03], rangemode: "normal"});
  const layout = {height, barmode: "stack", bargap: 0.1, hovermode: rows.size ? "closest" : "x unified",
    margin: {l: 60, r: 10, t: 10, b: 40}, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: {family: "system-ui, DejaVu Sans, sans-serif", size: 12}, showlegend: !rows.size,
    legend: {orientation: "h", y: -0.15, yanchor: "top"}, xaxis: {type: "date", range: spec.range}, yaxis};
  return Plotly.newPlot(place, plot.traces.map(trace), layout, {responsive: true, displayModeBar: false})
    .then(() => Plotly.relayout(place, looks(false)));
});
Promise.all(drawn).then(() => { document.documentElement.dataset.plots = "drawn"; });
const again = change => spec.plots.forEach(plot => Plotly.relayout(plot.id, change));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => again(looks(false)));
addEventListener("beforeprint", () => again({...looks(true), width: 700}));
addEventListener("afterprint", () => again({...looks(false), width: null, autosize: true}));
"""


def page(report: Report, told: Told, inventory: str, made: float, clock: Clock, plotly: str) -> str:
    """Return the file's text. `plotly` is the program that draws, as its package has it."""
    begin, end, now = clock(told.begin), clock(told.end), clock(made)
    zone = f"{end:%Z} (UTC{end:%z})" if f"{end:%Z}" != "UTC" else "UTC"
    title = f"Modelyard: {inventory}, {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} {zone}"
    sections = [section for section in report.sections if section.rows and section.traces]
    spec = {
        "x": [
            _moment(clock, told.point(place) - told.span.step_s / 2)
            for place in range(told.span.points)
        ],
        "range": [_moment(clock, told.begin), _moment(clock, told.end)],
        "palette": PALETTE,
        "plots": [_plot(section, clock) for section in sections],
    }
    step = f"{told.span.step_s // 60} minutes" if told.span.step_s > 60 else "minute"
    parts = [
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>",
        f"<h1>What happened on {escape(inventory)}</h1>",
        f"<p>{begin:%A, %Y-%m-%d %H:%M} to {end:%A, %Y-%m-%d %H:%M}, times in {escape(zone)}</p>",
        (
            f'<p class="soft">As Prometheus measured it, by the {step}. Made'
            f" {now:%Y-%m-%d %H:%M:%S}.</p>\n</header>"
        ),
        "<dl>",
        *(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
            for name, value in report.headline.items()
        ),
        "</dl>",
        *_missing(report.missing),
        (
            "<noscript><p>The plots need JavaScript; the tables hold the same"
            " figures.</p></noscript>\n<main>"
        ),
        *(line for section in report.sections for line in _section(section)),
        "</main>",
        f'<script type="application/json" id="plots">{_json(spec)}</script>',
        f"<script>{plotly}</script>\n<script>{PROGRAM}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _missing(sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield '<div class="missing"><strong>What is missing</strong><ul>'
        yield from (f"<li>{escape(sentence)}</li>" for sentence in sentences)
        yield "</ul></div>"


def _section(section: Section) -> Iterator[str]:
    yield f'<section id="{section.slug}">\n<h2>{escape(section.title)}</h2>'
    if not section.rows:
        yield f'<p class="empty">{escape(section.empty)}</p>\n</section>'
        return
    yield f'<p class="soft">{escape(section.note)}</p>\n<div class="table"><table>\n<thead><tr>'
    kinds = [
        "" if place < section.words else ' class="number"' for place in range(len(section.head))
    ]
    yield "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(section.head, kinds, strict=True)
    )
    yield "</tr></thead>\n<tbody>"
    for first, *rest in section.rows:
        cells = "".join(
            f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(rest, kinds[1:], strict=True)
        )
        yield f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
    if section.traces:
        label = f'role="img" aria-label="{escape(section.title)}, drawn"'
        yield f'<div class="plot" id="plot-{section.slug}" {label}></div>'
    yield "</section>"


def _plot(section: Section, clock: Clock) -> dict[str, Any]:
    return {
        "id": f"plot-{section.slug}",
        "unit": section.unit,
        "percent": section.percent,
        "traces": [_trace(one, clock) for one in section.traces],
    }


def _trace(one: Trace, clock: Clock) -> dict[str, Any]:
    # Plotly reads some HTML in what it writes, and no &quot;.
    found: dict[str, Any] = {
        "name": escape(one.name, quote=False),
        "kind": one.kind,
        "colour": one.colour,
        "dash": one.dash,
        "y": [
            escape(y, quote=False) if isinstance(y, str) else y and float(f"{y:.4g}") for y in one.y
        ],
    }
    if one.x is not None:
        found["x"] = [None if moment is None else _moment(clock, moment) for moment in one.x]
    return found


def _moment(clock: Clock, moment: float) -> str:
    return f"{clock(moment):%Y-%m-%dT%H:%M:%S}"


def _json(spec: Any) -> str:
    """As part of a page: nothing in it can end the element that it stands in."""
    return json.dumps(spec, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
