"""Builds the Grafana dashboards that the chart ships, from the metric names the programs use.

python tools/dashboards.py            write charts/retrainer/dashboards/*.json
python tools/dashboards.py --check    exit 1 if a file is not what would be written
"""

import sys
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from retrainer.api.prometheus import (
    API_WRITES,
    JOB_CREATED,
    JOB_CROSS_ENTROPY,
    JOB_FINISHED,
    JOB_IMAGES,
    JOB_IMAGES_PER_SECOND,
    JOB_INFO,
    JOB_MIN_ACCURACY,
    JOB_PHASE,
    JOB_REASON,
    JOB_STEP,
    JOB_STEPS,
    JOB_TEST_ACCURACY,
    JOB_TRAINING_ACCURACY,
    JOB_VALIDATION_ACCURACY,
    JOB_VALIDATION_CROSS_ENTROPY,
    JOBS_FINISHED,
    LAST_RESYNC,
    LEADER,
    NAMESPACES_SKIPPED,
    QUEUE_DEPTH,
    QUEUE_SECONDS,
    RECONCILE_SECONDS,
    RECONCILES,
    TASK_IMAGES,
    TASK_IMAGES_PER_SECOND,
    TASK_VALIDATION_ACCURACY,
    Metric,
)
from retrainer.api.reasons import REASONS, Kind

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # run as a file, not as a module

from tools.generated import write_or_check  # noqa: E402
from tools.panels import (  # noqa: E402
    CHOSEN,
    THIRD,
    assembled,
    board,
    choice,
    curve,
    lines,
    listing,
    number,
    query,
)

FOLDER = REPOSITORY / "charts" / "retrainer" / "dashboards"
JOB = f"{{{CHOSEN}}}"
POD = 'namespace=~"$namespace", retrainer_dev_job=~"$job"'
PODS = f"{{{POD}}}"
NAME = "{{namespace}}/{{name}}"
BY_JOB = "by (namespace, name)"
# While a job runs: the flat lines of thousands of finished ones would hide it.
RUNNING = (
    f'and on (namespace, name) {JOB_PHASE.name}{{{CHOSEN}, phase=~"Bottlenecks|Training"}} == 1'
)


def reason_pattern(kind: Kind) -> str:
    """A regular expression that matches all reasons of this kind."""
    return "|".join(sorted({r.name for r in REASONS if r.kind == kind}))


def jobs() -> Any:
    """Build the dashboard of the jobs: what they do and how good their heads are."""
    info = JOB_INFO.name
    cached, computed = (
        f'sum({JOB_IMAGES.name}{{{CHOSEN}, state="{state}"}})' for state in ("cached", "computed")
    )

    def phases(title: str, about: str, names: str, bad_from: float | None = None) -> Any:
        wanted = f'{JOB_PHASE.name}{{{CHOSEN}, phase=~"{names}"}}'
        return number(title, about, f"sum({wanted}) or vector(0)", bad_from=bad_from)

    def live(metric: Metric, title: str, about: str, unit: str = "short", **more: Any) -> Any:
        return lines(title, about, query(f"{metric.name}{JOB} {RUNNING}", NAME), unit=unit, **more)

    def latest(metric: Metric) -> str:
        return f"max {BY_JOB} ({metric.name}{JOB})"

    def by_reason(kind: Kind, metric: Metric) -> str:
        """The metric's value of the jobs with a reason of this kind, in milliseconds."""
        those = f'{JOB_REASON.name}{{{CHOSEN}, reason=~"{reason_pattern(kind)}"}}'
        of = "by (namespace, name, reason)"
        return f"max {of} ({those}) * on (namespace, name) group_left () {latest(metric)} * 1000"

    who = {"namespace": "Namespace", "name": "Job"}
    return assembled(
        board(
            "Retrainer / Jobs", "retrainer-jobs", "Accuracy, progress and failures of RetrainJobs."
        )
        .with_variable(choice("namespace", "Namespace", f"label_values({info}, namespace)"))
        .with_variable(
            choice("job", "Job", f'label_values({info}{{namespace=~"$namespace"}}, name)')
        ),
        (
            "Now",
            (
                phases("Waiting", "Pending or suspended jobs.", "Pending|Suspended"),
                phases("Running", "Jobs with a pod at work.", "Bottlenecks|Training"),
                phases("Succeeded", "Jobs that ended with a run.", "Succeeded"),
                phases("Failed", "Jobs that ended without one.", "Failed", bad_from=1),
                number(
                    "Best test accuracy",
                    "Of the jobs chosen above, on the test images.",
                    f"max({JOB_TEST_ACCURACY.name}{JOB})",
                    unit="percentunit",
                ),
                number(
                    "Cache hit ratio",
                    "Share of the bottlenecks that were in the cache.",
                    f"{cached} / ({cached} + {computed} > 0)",
                    unit="percentunit",
                ),
            ),
        ),
        (
            "Learning curves",
            (
                curve(
                    "Accuracy by step",
                    "Training and validation accuracy: 50 running jobs and the 50 that ended last, "
                    "the whole curve of each, however short the job was.",
                    "training_accuracy|validation_accuracy",
                    unit="percentunit",
                ),
                curve(
                    "Cross entropy by step",
                    "Training and validation cross entropy (nats) of the same jobs.",
                    "cross_entropy|validation_cross_entropy",
                    unit="none",
                ),
            ),
        ),
        (
            "Results",
            (
                listing(
                    "Test accuracy",
                    "Share of the test images guessed right, beside what the job's annotation "
                    "retrainer.dev/min-accuracy asks for.",
                    (
                        "Test accuracy",
                        "percentunit",
                        f"max by (namespace, name, architecture) ({info}{JOB}) "
                        "* on (namespace, name) group_left () "
                        f"{latest(JOB_TEST_ACCURACY)}",
                    ),
                    ("Asked for", "percentunit", latest(JOB_MIN_ACCURACY)),
                    names=who | {"architecture": "Architecture"},
                    sort="Test accuracy",
                ),
                lines(
                    "Ended",
                    "Jobs that ended in the hour before, by outcome and reason.",
                    query(
                        "sum by (outcome, reason) "
                        f"(increase({JOBS_FINISHED.name}_total[1h])) > 0",
                        "{{outcome}}: {{reason}}",
                    ),
                    unit="none",
                ),
                listing(
                    "Failures",
                    "Why each failed job failed; docs/reference/reasons.md says what to do.",
                    ("Ended", "dateTimeFromNow", by_reason(Kind.FAILED, JOB_FINISHED)),
                    names=who | {"reason": "Reason"},
                    sort="Ended",
                ),
                listing(
                    "Waits",
                    "What each waiting job waits for, and goes on once that is mended: "
                    "docs/reference/reasons.md says how.",
                    ("Created", "dateTimeFromNow", by_reason(Kind.WAITING, JOB_CREATED)),
                    names=who | {"reason": "Reason"},
                    sort="Created",
                ),
            ),
        ),
        (
            "While they run",
            (
                lines(
                    "Progress",
                    "Share of the training steps done.",
                    query(
                        f"{JOB_STEP.name}{JOB} / ({JOB_STEPS.name}{JOB} > 0) {RUNNING}", NAME
                    ),
                    unit="percentunit",
                    span=THIRD,
                    most=1,
                ),
                live(
                    JOB_IMAGES_PER_SECOND,
                    "Images per second",
                    "Bottlenecks computed per second, all pods of a job together.",
                    span=THIRD,
                ),
                lines(
                    "Images",
                    "Images of the chosen jobs by state, finished jobs included.",
                    query(f"sum by (state) ({JOB_IMAGES.name}{JOB})", "{{state}}"),
                    span=THIRD,
                ),
                live(
                    JOB_TRAINING_ACCURACY,
                    "Training accuracy",
                    "On the latest training batch.",
                    "percentunit",
                    most=1,
                ),
                live(
                    JOB_VALIDATION_ACCURACY,
                    "Validation accuracy",
                    "On validation images.",
                    "percentunit",
                    most=1,
                ),
                live(
                    JOB_CROSS_ENTROPY, "Cross entropy", "Of the latest training batch, nats.", "none"
                ),
                live(
                    JOB_VALIDATION_CROSS_ENTROPY,
                    "Validation cross entropy",
                    "Latest, nats.",
                    "none",
                ),
            ),
        ),
        (
            "Trainer pods, where they are scraped themselves (see the chart's monitoring.podMonitor)",
            (
                lines(
                    "Images per second of each pod",
                    "Bottlenecks computed per second.",
                    query(TASK_IMAGES_PER_SECOND.name + PODS, "{{namespace}}/{{pod}}"),
                    span=THIRD,
                ),
                lines(
                    "Images of each pod",
                    "Found in the cache, computed or rejected so far.",
                    query(
                        "sum by (namespace, pod) "
                        f'({TASK_IMAGES.name}{{{POD}, state!="total"}})',
                        "{{namespace}}/{{pod}}",
                    ),
                    span=THIRD,
                ),
                lines(
                    "Validation accuracy of each pod",
                    "As the pod itself tells it.",
                    query(TASK_VALIDATION_ACCURACY.name + PODS, "{{namespace}}/{{pod}}"),
                    unit="percentunit",
                    span=THIRD,
                    most=1,
                ),
            ),
        ),
    )  # fmt: skip


def operator() -> Any:
    """Build the dashboard of the operator itself."""

    def quantiles(title: str, about: str, metric: Metric) -> Any:
        rate = f"sum by (le) (rate({metric.name}_bucket[$__rate_interval]))"
        of = [
            query(f"histogram_quantile({q}, {rate})", name, ref=name.upper())
            for q, name in ((0.5, "p50"), (0.99, "p99"))
        ]
        return lines(title, about, *of, unit="s")

    def per_second(title: str, about: str, metric: Metric) -> Any:
        by = ", ".join(metric.labels)
        shown = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
        rate = f"sum by ({by}) (rate({metric.name}_total[$__rate_interval]))"
        return lines(title, about, query(rate, shown), unit="ops")

    def of_process(title: str, about: str, expr: str, unit: str) -> Any:
        ours = f"{expr} and on (instance) {LEADER.name}"
        return lines(title, about, query(ours, "{{instance}}"), unit=unit)

    leader = f"on (instance) {LEADER.name} == 1"
    return assembled(
        board("Retrainer / Operator", "retrainer-operator", "Health of the Retrainer operator."),
        (
            "Now",
            (
                number(
                    "Leaders",
                    "Exactly one replica leads.",
                    f"sum({LEADER.name}) or vector(0)",
                    bad_below=1,
                ),
                number("Replicas", "Replicas that are scraped.", f"count({LEADER.name})"),
                number(
                    "Since the last full list",
                    "The leader lists everything anew every five minutes.",
                    f"time() - max({LAST_RESYNC.name} and {leader})",
                    unit="s",
                    bad_from=900,
                ),
                number("Jobs", "Jobs that the operator knows.", f"count({JOB_INFO.name})"),
                number(
                    "On the queue",
                    "Jobs that wait for a pass.",
                    f"sum({QUEUE_DEPTH.name} and {leader})",
                ),
                number(
                    "Namespaces skipped",
                    "Namespaces without the rights that the operator needs.",
                    f"max({NAMESPACES_SKIPPED.name})",
                    bad_from=1,
                ),
            ),
        ),
        (
            "Passes",
            (
                per_second("Passes", "Passes over a job per second, by result.", RECONCILES),
                quantiles(
                    "Time of a pass",
                    "From reading what is known to the last write.",
                    RECONCILE_SECONDS,
                ),
                quantiles(
                    "Time on the queue", "From an event to the start of its pass.", QUEUE_SECONDS
                ),
                per_second(
                    "Writes to the API server",
                    "Per second, by verb, resource and status code.",
                    API_WRITES,
                ),
            ),
        ),
        (
            "Process",
            (
                of_process(
                    "Memory",
                    "Resident memory of each replica.",
                    "process_resident_memory_bytes",
                    "bytes",
                ),
                of_process(
                    "CPU",
                    "Cores used by each replica.",
                    "rate(process_cpu_seconds_total[$__rate_interval])",
                    "none",
                ),
            ),
        ),
    )  # fmt: skip


def encoded(board: Any) -> str:
    """Write a dashboard as JSON, its panels numbered."""
    built = board.build()
    for number_of_panel, panel in enumerate(built.panels, 1):
        panel.id_val = number_of_panel
    return str(JSONEncoder(sort_keys=True, indent=2).encode(built)) + "\n"


def main() -> int:
    """Write or check the files."""
    boards = {"jobs.json": jobs(), "operator.json": operator()}
    files = {FOLDER / name: encoded(board) for name, board in boards.items()}
    return write_or_check(files, "Build the Grafana dashboards that the chart ships.")


if __name__ == "__main__":
    sys.exit(main())
