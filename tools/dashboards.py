"""Builds the Grafana dashboards that the chart ships, from the metric names the programs use.

python tools/dashboards.py            write charts/retrainer/dashboards/*.json
python tools/dashboards.py --check    exit 1 if a file is not what would be written
"""

import argparse
import sys
from pathlib import Path
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
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DataTransformerConfig,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import SeriesMapping

from retrainer.api import metrics as m

FOLDER = Path(__file__).resolve().parent.parent / "charts" / "retrainer" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB = '{namespace=~"$namespace", name=~"$job"}'
WIDE, HALF, THIRD, SIXTH = 24, 12, 8, 4
HEIGHT = 8


def query(expr: str, legend: str = "", *, instant: bool = False, ref: str = "A") -> Any:
    """One query; an instant one gives a table of the newest values."""
    q = prometheus.Dataquery().expr(expr).legend_format(legend or "__auto").ref_id(ref)
    return q.instant().format(PromQueryFormat.TABLE) if instant else q.range()


def place(panel: Any, title: str, about: str, *, span: int = HALF, height: int = HEIGHT) -> Any:
    """What every panel has."""
    return panel.title(title).description(about).datasource(SOURCE).span(span).height(height)


def lines(title: str, about: str, *queries: Any, unit: str = "short", span: int = HALF) -> Any:
    """Values over time."""
    panel = place(timeseries.Panel(), title, about, span=span).unit(unit).line_width(2).min(0)
    legend = common.VizLegendOptions().show_legend(True)
    for q in queries:
        panel = panel.with_target(q)
    return panel.legend(legend)


def number(title: str, about: str, expr: str, *, unit: str = "short") -> Any:
    """One large number."""
    panel = place(stat.Panel(), title, about, span=SIXTH, height=4).unit(unit)
    return panel.with_target(prometheus.Dataquery().expr(expr).instant().ref_id("A"))


def curve(title: str, about: str, metric: str, *, unit: str) -> Any:
    """A learning curve over steps, one line per job and metric.

    The points are series with a `step` label, read by an instant query: so the whole curve of a job
    that ended before the first scrape is there. They are turned into a table of one row per step.
    """
    expr = (
        f'label_join({m.JOB_CURVE.name}{{namespace=~"$namespace", name=~"$job", '
        f'metric=~"{metric}"}}, "line", " ", "name", "metric")'
    )
    matrix = {
        "columnField": "line",
        "rowField": "step",
        "valueField": "Value",
        "emptyValue": "null",
    }
    step = "step\\line"
    number_of = {"conversions": [{"targetField": step, "destinationType": "number"}], "fields": {}}
    order = {"fields": {}, "sort": [{"field": step, "desc": False}]}
    panel = place(xychart.Panel(), title, about).unit(unit).with_target(query(expr, instant=True))
    for name, options in (
        ("groupingToMatrix", matrix),
        ("convertFieldType", number_of),
        ("sortBy", order),
    ):
        panel = panel.with_transformation(DataTransformerConfig(id_val=name, options=options))
    return panel.series_mapping(SeriesMapping.AUTO).dims(
        xychart.XYDimensionConfig().frame(0).x(step)
    )


def listing(
    title: str, about: str, expr: str, hidden: tuple[str, ...] = (), span: int = HALF
) -> Any:
    """A table of the newest values, one row per series."""
    away = dict.fromkeys(("Time", "__name__", "instance", "job", "pod", *hidden), True)
    organize = DataTransformerConfig(id_val="organize", options={"excludeByName": away})
    panel = place(table.Panel(), title, about, span=span)
    return panel.with_target(query(expr, instant=True)).with_transformation(organize)


def board(title: str, uid: str, about: str) -> Any:
    """An empty dashboard with its data source."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["retrainer"])
        .refresh("15s")
        .time("now-6h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )


def choice(name: str, label: str, values: str) -> Any:
    """A variable whose values come from labels."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(values)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
        .current({"text": "All", "value": "$__all"})
    )


def jobs() -> Any:
    """What the jobs do and how good their heads are."""
    info = m.JOB_INFO.name
    cached, computed = (
        f'sum({m.JOB_IMAGES.name}{{namespace=~"$namespace", name=~"$job", state="{s}"}})'
        for s in ("cached", "computed")
    )
    phase = f'{m.JOB_PHASE.name}{{namespace=~"$namespace", name=~"$job"}}'

    def by_job(metric: m.Metric, title: str, about: str, unit: str = "short") -> Any:
        return lines(title, about, query(metric.name + JOB, "{{namespace}}/{{name}}"), unit=unit)

    def phases(title: str, about: str, names: str) -> Any:
        wanted = phase.replace("}", f', phase=~"{names}"}}')
        return number(title, about, f"sum({wanted}) or vector(0)")

    return (
        board(
            "Retrainer / Jobs", "retrainer-jobs", "Accuracy, progress and failures of RetrainJobs."
        )
        .with_variable(choice("namespace", "Namespace", f"label_values({info}, namespace)"))
        .with_variable(
            choice("job", "Job", f'label_values({info}{{namespace=~"$namespace"}}, name)')
        )
        .with_panel(phases("Waiting", "Pending or suspended jobs.", "Pending|Suspended"))
        .with_panel(phases("Running", "Jobs with a pod at work.", "Bottlenecks|Training"))
        .with_panel(phases("Succeeded", "Jobs that ended with a run.", "Succeeded"))
        .with_panel(phases("Failed", "Jobs that ended without one.", "Failed"))
        .with_panel(
            number(
                "Best test accuracy",
                "Of the jobs chosen above, on the test images.",
                f"max({m.JOB_TEST_ACCURACY.name}{JOB})",
                unit="percentunit",
            )
        )
        .with_panel(
            number(
                "Cache hit ratio",
                "Share of bottlenecks that were in the cache.",
                f"{cached} / ({cached} + {computed})",
                unit="percentunit",
            )
        )
        .with_panel(
            curve(
                "Accuracy by step",
                "Training and validation accuracy of the newest jobs, the whole curve of each.",
                "training_accuracy|validation_accuracy",
                unit="percentunit",
            )
        )
        .with_panel(
            curve(
                "Cross entropy by step",
                "Training and validation cross entropy (nats) of the newest jobs.",
                "cross_entropy|validation_cross_entropy",
                unit="short",
            )
        )
        .with_panel(
            listing(
                "Test accuracy",
                "Of every finished job; share of the test images guessed right.",
                f"sort_desc(max by (namespace, name) ({m.JOB_TEST_ACCURACY.name}{JOB}))",
            )
        )
        .with_panel(
            listing(
                "Failures and waits",
                "The reason each job gives; docs/reference/reasons says what to do about it.",
                f'max by (namespace, name, reason) ({m.JOB_REASON.name}{{namespace=~"$namespace", '
                'name=~"$job", reason!~"Succeeded|TrainingHead|ComputingBottlenecks|Exporting"})',
                ("Value",),
            )
        )
        .with_panel(
            by_job(
                m.JOB_TRAINING_ACCURACY,
                "Training accuracy",
                "On the latest training batch.",
                "percentunit",
            )
        )
        .with_panel(
            by_job(
                m.JOB_VALIDATION_ACCURACY,
                "Validation accuracy",
                "On validation images.",
                "percentunit",
            )
        )
        .with_panel(
            by_job(m.JOB_CROSS_ENTROPY, "Cross entropy", "Of the latest training batch, nats.")
        )
        .with_panel(
            by_job(m.JOB_VALIDATION_CROSS_ENTROPY, "Validation cross entropy", "Latest, nats.")
        )
        .with_panel(
            lines(
                "Progress",
                "Share of the training steps done.",
                query(
                    f"{m.JOB_STEP.name}{JOB} / {m.JOB_STEPS.name}{JOB}", "{{namespace}}/{{name}}"
                ),
                unit="percentunit",
            )
        )
        .with_panel(
            by_job(m.JOB_IMAGES_PER_SECOND, "Images per second", "Bottlenecks computed per second.")
        )
        .with_panel(
            lines(
                "Images",
                "Images of all chosen jobs by state.",
                query(f"sum by (state) ({m.JOB_IMAGES.name}{JOB})", "{{state}}"),
            )
        )
        .with_panel(
            lines(
                "Ended",
                "Jobs that ended per hour, by outcome and reason.",
                query(
                    f"sum by (outcome, reason) (increase({m.JOBS_FINISHED.name}_total[1h]))",
                    "{{outcome}} {{reason}}",
                ),
            )
        )
    )


def operator() -> Any:
    """Whether the operator itself is well."""

    def quantile(metric: m.Metric, q: float) -> Any:
        rate = f"sum by (le) (rate({metric.name}_bucket[$__rate_interval]))"
        return query(f"histogram_quantile({q}, {rate})", f"p{q * 100:g}", ref=f"Q{q * 100:g}")

    return (
        board("Retrainer / Operator", "retrainer-operator", "Health of the Retrainer operator.")
        .with_panel(number("Leaders", "Exactly one replica leads.", f"sum({m.LEADER.name})"))
        .with_panel(
            number(
                "Since the last full list",
                "The operator lists everything anew every five minutes.",
                f"time() - max({m.LAST_RESYNC.name})",
                unit="s",
            )
        )
        .with_panel(number("Waiting", "Jobs on the queue.", f"sum({m.QUEUE_DEPTH.name})"))
        .with_panel(
            number(
                "Namespaces skipped",
                "For lack of rights.",
                f"max({m.NAMESPACES_SKIPPED.name})",
            )
        )
        .with_panel(
            lines(
                "Passes",
                "Passes over a job per second, by result.",
                query(
                    f"sum by (result) (rate({m.RECONCILES.name}_total[$__rate_interval]))",
                    "{{result}}",
                ),
                unit="ops",
            )
        )
        .with_panel(
            lines(
                "Time of a pass",
                "From reading what is known to the last write.",
                quantile(m.RECONCILE_SECONDS, 0.5),
                quantile(m.RECONCILE_SECONDS, 0.99),
                unit="s",
            )
        )
        .with_panel(
            lines(
                "Time on the queue",
                "From an event to the start of its pass.",
                quantile(m.QUEUE_SECONDS, 0.5),
                quantile(m.QUEUE_SECONDS, 0.99),
                unit="s",
            )
        )
        .with_panel(
            lines(
                "Writes to the API server",
                "Per second, by verb, resource and status code.",
                query(
                    f"sum by (verb, resource, code) (rate({m.API_WRITES.name}_total[$__rate_interval]))",
                    "{{verb}} {{resource}} {{code}}",
                ),
                unit="ops",
            )
        )
        .with_panel(
            lines(
                "Memory",
                "Resident memory of each replica.",
                query(
                    f"process_resident_memory_bytes and on (instance) {m.LEADER.name}",
                    "{{instance}}",
                ),
                unit="bytes",
            )
        )
        .with_panel(
            lines(
                "CPU",
                "Cores used by each replica.",
                query(
                    "rate(process_cpu_seconds_total[$__rate_interval]) "
                    f"and on (instance) {m.LEADER.name}",
                    "{{instance}}",
                ),
            )
        )
    )


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 if a file is old"
    )
    check = parser.parse_args().check
    old = []
    for name, built in (("jobs.json", jobs()), ("operator.json", operator())):
        text = JSONEncoder(sort_keys=True, indent=2).encode(built.build()) + "\n"
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        old.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote charts/retrainer/dashboards/{name}")
    if check and old:
        print(f"dashboards are old ({', '.join(old)}): run make generate", file=sys.stderr)
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
