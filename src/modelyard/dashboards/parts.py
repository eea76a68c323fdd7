"""What dashboards are made of: panels with queries, legends, units and thresholds, in rows that
fill the width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from modelyard.dashboards.expressions import RELEASE, per_second, summed

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="modelyard-prometheus")
"""The one that the role provisions."""

TAG = "modelyard"
WIDTH = 24
"""Columns of Grafana's grid."""

Panel = timeseries.Panel | stat.Panel | statetimeline.Panel | table.Panel
P = TypeVar("P", timeseries.Panel, stat.Panel, statetimeline.Panel, table.Panel)
Queries = Mapping[str, str]
"""Legend: expression."""
Steps = Sequence[tuple[float | None, str]]
"""From which value on which colour; the first step has no value."""
States = Mapping[int, tuple[str, str]]
"""What a value means, and its colour."""

PLAIN: Steps = [(None, "green")]


# -- expressions -----------------------------------------------------------------------------------


def rate(metric: str, *by: str) -> str:
    """How much a counter grows in a second; `by` empty: all together."""
    return summed(per_second(), metric, *by)


def in_range(metric: str, *by: str) -> str:
    """How much a counter grew in the time that the dashboard shows."""
    return summed(lambda counter: f"increase({counter}[$__range])", metric, *by)


# -- thresholds ------------------------------------------------------------------------------------


def above(value: float, colour: str = "red") -> Steps:
    """Green, and this colour from the value on."""
    return [(None, "green"), (value, colour)]


def below(value: float, colour: str = "red") -> Steps:
    """Green from the value on, and this colour below it."""
    return [(None, colour), (value, "green")]


def _thresholds(steps: Steps) -> dashboard.ThresholdsConfig:
    # The first step has no value: null in JSON, which the typed model cannot say of a number.
    made = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)


# -- panels ----------------------------------------------------------------------------------------


def _common(panel: P, title: str, unit: str, queries: Queries, steps: Steps, description: str) -> P:
    panel = panel.title(title).unit(unit).datasource(DATASOURCE).thresholds(_thresholds(steps))
    if description:
        panel = panel.description(description)
    for letter, (legend, expression) in zip("ABCDEF", queries.items(), strict=False):
        query = (
            prometheus.Dataquery()
            .expr(expression)
            .legend_format(legend)
            .ref_id(letter)
            .datasource(DATASOURCE)
        )
        if isinstance(panel, table.Panel):
            query = query.format(PromQueryFormat.TABLE).instant()
        else:
            query = query.instant() if isinstance(panel, stat.Panel) else query.range()
        panel = panel.with_target(query)
    return panel


def series(
    title: str,
    unit: str,
    queries: Queries,
    *,
    steps: Steps = PLAIN,
    stack: bool = False,
    description: str = "",
) -> timeseries.Panel:
    """Lines over time. Thresholds are drawn; what is stacked starts at zero."""
    panel = _common(timeseries.Panel(), title, unit, queries, steps, description)
    panel = (
        panel.min(0)
        .line_width(1)
        .fill_opacity(60 if stack else 8)
        .show_points(options.VisibilityMode.NEVER)
    )
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.TABLE)
    legend = (
        legend.placement(options.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
        .show_legend(True)
    )
    tooltip = common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI)
    panel = panel.legend(legend).tooltip(tooltip.sort(options.SortOrder.DESCENDING))
    if unit == "percentunit":
        panel = panel.max(1)
    if stack:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if len(steps) > 1:
        drawn = common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(drawn)
    return panel


def number(
    title: str,
    unit: str,
    expression: str,
    *,
    steps: Steps = PLAIN,
    legend: str = "",
    description: str = "",
) -> stat.Panel:
    """One number, or one per legend."""
    panel = _common(stat.Panel(), title, unit, {legend or title: expression}, steps, description)
    colour = (
        options.BigValueColorMode.BACKGROUND if len(steps) > 1 else options.BigValueColorMode.VALUE
    )
    reduced = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    return (
        panel.color_mode(colour).graph_mode(options.BigValueGraphMode.NONE).reduce_options(reduced)
    )


def states(
    title: str, queries: Queries, meaning: States, *, description: str = ""
) -> statetimeline.Panel:
    """Return a panel that shows what state each thing was in over time."""
    steps: Steps = [
        (None, "text"),
        *((float(value), colour) for value, (_, colour) in sorted(meaning.items())),
    ]
    panel = _common(statetimeline.Panel(), title, "none", queries, steps, description)
    results = {
        str(value): model.ValueMappingResult(text=text, color=colour, index=place)
        for place, (value, (text, colour)) in enumerate(sorted(meaning.items()))
    }
    return panel.mappings([model.ValueMap(options=results)]).merge_values(True).row_height(0.8)


def listing(
    title: str, unit: str, expression: str, columns: Mapping[str, str], *, description: str = ""
) -> table.Panel:
    """Return a table of what is now; `columns` are labels (and `Value`) with their headings, in
    order.
    """
    panel = _common(table.Panel(), title, unit, {title: expression}, PLAIN, description)
    chosen = {
        "include": {"names": list(columns)},
    }
    order = {
        "indexByName": {name: place for place, name in enumerate(columns)},
        "renameByName": dict(columns),
    }
    panel = panel.with_transformation(
        model.DataTransformerConfig("filterFieldsByName", options=chosen)
    )
    return panel.with_transformation(model.DataTransformerConfig("organize", options=order))


# -- dashboards ------------------------------------------------------------------------------------


class Annotations(model.AnnotationQuery):
    """Events from Prometheus, with what the typed model has no fields for."""

    def __init__(
        self, name: str, colour: str, expression: str, title: str, text: str, *, at_value: bool
    ) -> None:
        super().__init__(name=name, datasource=DATASOURCE, icon_color=colour, expr=expression)
        self.more = {
            "titleFormat": title,
            "textFormat": text,
            "step": "60s",
            "useValueForTime": at_value,
        }

    def to_json(self) -> dict[str, object]:
        """As Grafana wants it."""
        return {**super().to_json(), **self.more}


CHANGES = Annotations(
    "Changes",
    "blue",
    "modelyard_release_live_since_seconds * 1000 * on (instance, service) group_left (release,"
    f" version) {RELEASE}",
    "{{service}} on {{instance}}",
    "release {{release}} {{version}}",
    at_value=True,
)
ALERTS = Annotations(
    "Critical alerts",
    "red",
    'ALERTS{alertstate="firing",severity="critical"}',
    "{{alertname}}",
    "{{instance}} {{service}} {{model_id}}",
    at_value=False,
)


def board(
    slug: str, title: str, description: str, rows: Mapping[str, Sequence[Panel]]
) -> model.Dashboard:
    """Return a dashboard; the panels of a row share its width."""
    builder = (
        dashboard.Dashboard(f"Modelyard: {title}")
        .uid(f"modelyard-{slug}")
        .description(description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(_links())
    )
    ids, y = count(1), 0
    for name, panels in rows.items():
        builder = builder.with_row(
            dashboard.Row(name).id(next(ids)).grid_pos(_place(0, y, WIDTH, 1))
        )
        y += 1
        height = 4 if all(isinstance(panel, stat.Panel) for panel in panels) else 8
        for place, panel in enumerate(panels):
            width = WIDTH // len(panels)
            position = _place(place * width, y, width, height)
            builder = builder.with_panel(panel.id(next(ids)).grid_pos(position))
        y += height
    made = builder.build()
    made.annotations = model.AnnotationContainer(list_val=[CHANGES, ALERTS])
    return made


def _place(x: int, y: int, width: int, height: int) -> model.GridPos:
    return model.GridPos(x=x, y=y, w=width, h=height)


def _links() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Modelyard").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(True).keep_time(True).icon("dashboard").tooltip("The other dashboards")
