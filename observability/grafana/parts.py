"""What the dashboards are made of: panels of the kinds in use, queries, thresholds and links, by Grafana's own SDK."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common as make
from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.dashboard import Panel as BuiltPanel
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

GOOD, WARN, BAD, NEUTRAL, IDLE = "green", "orange", "red", "text", "#73767c"
Panel = Builder[BuiltPanel]
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Query:
    """One PromQL expression; `legend` may name labels, as in {{dataset}}."""

    expr: str
    legend: str = ""


def steps(*limits: tuple[float, str], below: str = GOOD) -> list[Threshold]:
    """Colours by value: `below` up to the first limit, then each limit's own from it on."""
    return [Threshold(value=None, color=below), *(Threshold(value=limit, color=color) for limit, color in limits)]


def words(meanings: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    """Numbers that stand for states: number → text and colour."""
    shown = {str(value): ValueMappingResult(text=text, color=color) for value, (text, color) in meanings.items()}
    return [ValueMap(options=shown)]


def link(title: str, url: str) -> dashboard.DashboardLink:
    """A link on a panel or a board, to a new tab."""
    return dashboard.DashboardLink(title).type(DashboardLinkType.LINK).url(url).target_blank(True)


def number(
    title: str,
    answers: str,
    queries: Iterable[Query],
    *,
    unit: str,
    limits: list[Threshold],
    span: int,
    height: int = 4,
    decimals: int | None = None,
    mappings: list[ValueMapping] | None = None,
    links: Iterable[dashboard.DashboardLink] = (),
    graph: bool = False,
    filled: bool = True,
) -> stat.Panel:
    """A number or a word for each query, newest value, its background coloured by the limits."""
    panel = (
        stat.Panel()
        .title(title)
        .description(answers)
        .datasource(SOURCE)
        .unit(unit)
        .thresholds(_absolute(limits))
        .span(span)
        .height(height)
        .reduce_options(make.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common.BigValueColorMode.BACKGROUND if filled else common.BigValueColorMode.VALUE)
        .graph_mode(common.BigValueGraphMode.AREA if graph else common.BigValueGraphMode.NONE)
        .links(list(links))
        .no_value("unknown")
    )
    if decimals is not None:
        panel = panel.decimals(decimals)
    if mappings:
        panel = panel.mappings(mappings)
    queries = list(queries)
    if len(queries) > 1 or "{{" in queries[0].legend:
        panel = panel.text_mode(common.BigValueTextMode.VALUE_AND_NAME)
    for ref, query in enumerate(queries):
        panel = panel.with_target(_target(query, ref, instant=not graph))
    return panel


def curve(
    title: str,
    answers: str,
    queries: Iterable[Query],
    *,
    unit: str,
    span: int,
    height: int = 7,
    limits: list[Threshold] | None = None,
    lowest: float | None = None,
    at_least: float | None = None,
    stepped: bool = False,
    colors: Mapping[str, str] | None = None,
    links: Iterable[dashboard.DashboardLink] = (),
) -> timeseries.Panel:
    """Values over time, with a dashed line at each limit.

    The axis begins at `lowest` and reaches up to `at_least`; `colors` are by legend.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(answers)
        .datasource(SOURCE)
        .unit(unit)
        .span(span)
        .height(height)
        .line_width(2)
        .fill_opacity(8)
        .show_points(common.VisibilityMode.NEVER)
        .legend(
            make.VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
        )
        .links(list(links))
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC))
    )
    if stepped:
        panel = panel.line_interpolation(common.LineInterpolation.STEP_AFTER)
    if limits:
        dashed = make.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds(_absolute(limits)).thresholds_style(dashed)
    if lowest is not None:
        panel = panel.min(lowest)
    if at_least is not None:
        panel = panel.axis_soft_max(at_least)
    for ref, query in enumerate(queries):
        panel = panel.with_target(_target(query, ref))
    for legend, color in (colors or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        panel = panel.override_by_name(legend, [DynamicConfigValue("color", fixed)])
    return panel


def rows(
    title: str,
    answers: str,
    query: Query,
    *,
    columns: Mapping[str, str],
    properties: Mapping[str, Mapping[str, object]],
    sort: str,
    span: int,
    height: int,
    empty: str,
    descending: bool = False,
) -> table.Panel:
    """The labels of a query's series as a table. `columns` are label → heading, in order; `Value` is the value.

    `properties` are field options by heading, `sort` the heading to sort by; `empty` is told without a series.
    """
    chosen = DataTransformerConfig(
        id_val="organize",
        options={
            "includeByName": dict.fromkeys(columns, True),
            "indexByName": {label: place for place, label in enumerate(columns)},
            "renameByName": dict(columns),
        },
    )
    panel = (
        table.Panel()
        .title(title)
        .description(answers)
        .datasource(SOURCE)
        .span(span)
        .height(height)
        .no_value(empty)
        .sort_by([make.TableSortByFieldState().display_name(sort).desc(descending)])
        .with_transformation(chosen)
        .with_target(_target(query, 0, instant=True).format(PromQueryFormat.TABLE))
    )
    for heading, options in properties.items():
        panel = panel.override_by_name(heading, [DynamicConfigValue(name, value) for name, value in options.items()])
    return panel


def _absolute(limits: list[Threshold]) -> dashboard.ThresholdsConfig:
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(limits)


def _target(query: Query, ref: int, *, instant: bool = False) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + ref))
    return target.instant() if instant else target.range()
