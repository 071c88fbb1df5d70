"""Parts of the dashboards: Grafana's panels and variables as ours look.

They need Grafana 11.1 or newer: earlier ones keep the XY chart's options in another form.
"""

from typing import Any

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
    xychart,
)
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import ScatterShow

from retrainer.api.prometheus import JOB_CURVE

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN = 'namespace=~"$namespace", name=~"$job"'
HALF, THIRD, SIXTH = 12, 8, 4
HEIGHT = 8


class Built:
    """A finished panel where the dashboard expects the builder of one."""

    def __init__(self, panel: Any) -> None:
        self._panel = panel

    def build(self) -> Any:
        """Give the panel."""
        return self._panel


def query(expr: str, legend: str = "", *, instant: bool = False, ref: str = "A") -> Any:
    """One query; an instant one gives a table of the newest values."""
    q = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref)
    return q.instant().format(PromQueryFormat.TABLE) if instant else q.range()


def transform(name: str, **options: Any) -> DataTransformerConfig:
    """One step between the queries' answer and the panel."""
    return DataTransformerConfig(id_val=name, options=options)


def place(panel: Any, title: str, about: str, *, span: int = HALF, height: int = HEIGHT) -> Any:
    """Set what every panel has: title, description, data source and size."""
    return panel.title(title).description(about).datasource(SOURCE).span(span).height(height)


def legend(*calcs: str) -> Any:
    """Below the panel, a line per series, with these figures of it."""
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .placement(LegendPlacement.BOTTOM)
        .display_mode(LegendDisplayMode.TABLE if calcs else LegendDisplayMode.LIST)
        .calcs(list(calcs))
    )


def lines(
    title: str,
    about: str,
    *queries: Any,
    unit: str = "short",
    span: int = HALF,
    most: float | None = None,
) -> Any:
    """Values over time."""
    panel = (
        place(timeseries.Panel(), title, about, span=span)
        .unit(unit)
        .min(0)
        .line_width(2)
        .fill_opacity(5)
        .show_points(VisibilityMode.AUTO)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(legend("lastNotNull", "max"))
    )
    if most is not None:
        panel = panel.max(most)
    for q in queries:
        panel = panel.with_target(q)
    return panel


def number(
    title: str,
    about: str,
    expr: str,
    *,
    unit: str = "none",
    bad_below: float | None = None,
    bad_from: float | None = None,
) -> Any:
    """One large number, a sixth of the width; red below `bad_below` and from `bad_from` on."""
    steps = [Threshold(color="text" if bad_below is None else "red", value=None)]
    if bad_below is not None:
        steps.append(Threshold(color="text", value=bad_below))
    if bad_from is not None:
        steps.append(Threshold(color="red", value=bad_from))
    return (
        place(stat.Panel(), title, about, span=SIXTH, height=4)
        .unit(unit)
        .with_target(prometheus.Dataquery().expr(expr).instant().ref_id("A"))
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        .no_value("-")
    )


def curve(title: str, about: str, metric: str, *, unit: str) -> Any:
    """Make a learning curve over steps, one line per job and metric.

    The points are series with a `step` label, read by an instant query: so the whole curve of a job
    that ended before the first scrape is there. Each line is made a frame of its own: in a table of
    all steps, the XY chart would draw 0 at the steps that only other jobs have.
    """
    points = f'{JOB_CURVE.name}{{{CHOSEN}, metric=~"{metric}"}}'
    # Grafana leaves out the words that all lines have in common, such as the only namespace.
    expr = f'label_join({points}, "line", " ", "namespace", "name", "metric")'
    panel = (
        place(xychart.Panel(), title, about, height=10)
        .unit(unit)
        .show(ScatterShow.POINTS_AND_LINES)
        .point_size(common.ScaleDimensionConfig().fixed(5).min(1).max(100))
        .line_width(2)
        # The panel's unit is that of every field: without this, step 500 would read 50,000%.
        .override_by_name(
            "step",
            [
                DynamicConfigValue(id_val="unit", value="none"),
                DynamicConfigValue(id_val="custom.axisLabel", value="step"),
            ],
        )
        .with_target(query(expr, instant=True))
        .with_transformation(
            transform(
                "convertFieldType",
                fields={},
                conversions=[{"targetField": "step", "destinationType": "number"}],
            )
        )
        .with_transformation(
            transform("sortBy", fields={}, sort=[{"field": "step", "desc": False}])
        )
        .with_transformation(
            transform("partitionByValues", fields=["line"], keepFields=False, naming={"asLabels": True})
        )
        .build()
    )  # fmt: skip
    # The SDK's XY chart is that of Grafana 10.1; this is how 11.1 and newer keep it.
    panel.plugin_version = "11.1.0"
    panel.options = {
        "mapping": "auto",
        "series": [{"x": {"matcher": {"id": "byName", "options": "step"}}}],
        "legend": legend().build(),
        "tooltip": common.VizTooltipOptions().mode(TooltipDisplayMode.SINGLE).build(),
    }
    return Built(panel)


def listing(
    title: str,
    about: str,
    *columns: tuple[str, str, str],
    names: dict[str, str],
    sort: str,
) -> Any:
    """Make a table of the newest values, a row per job.

    Args:
        title: of the panel.
        about: its description.
        columns: name, unit and query of each column of values.
        names: of the labels shown, with their titles, in this order.
        sort: title of the column to sort by, the largest first.
    """
    panel = place(table.Panel(), title, about)
    titles = dict(names)
    for i, (column, unit, expr) in enumerate(columns):
        ref = "ABCDE"[i]
        panel = panel.with_target(query(expr, instant=True, ref=ref))
        # Grafana adds the query's letter only where there are several.
        titles["Value" if len(columns) == 1 else f"Value #{ref}"] = column
        panel = panel.override_by_name(column, [DynamicConfigValue(id_val="unit", value=unit)])
    order = {name: i for i, name in enumerate(titles)}
    if len(columns) > 1:
        panel = panel.with_transformation(transform("merge"))
    return panel.with_transformation(
        transform("organize", excludeByName={"Time": True}, indexByName=order, renameByName=titles)
    ).sort_by([common.TableSortByFieldState().display_name(sort).desc(True)])


def board(title: str, uid: str, about: str) -> Any:
    """Make an empty dashboard with its data source."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["retrainer"])
        .refresh("15s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Retrainer")
            .type("dashboards")
            .tags(["retrainer"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )


def choice(name: str, label: str, values: str) -> Any:
    """Make a variable whose values come from labels."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        # One pattern, where Grafana would list the names of thousands of jobs in each query.
        .all_value(".*")
        .multi(True)
        .current({"text": "All", "value": "$__all"})
    )


def assembled(board: Any, *rows: tuple[str, tuple[Any, ...]]) -> Any:
    """Add to the dashboard its rows, each with a title and its panels."""
    for title, panels in rows:
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    return board
