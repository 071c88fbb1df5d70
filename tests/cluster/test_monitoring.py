"""What is watched, for real: Prometheus scrapes the operator, and every query of the chart returns data.

The operator runs on a real API server with real jobs: one runs, one lasted a moment, one failed, one is
less accurate than its annotation asks for, one has many rejected images, one cannot be scheduled, and
one waits in a queue. The running job's pod is a trainer's own reporter.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.operator.harness import Bed, Namespace, Operator, eventually
from tests.support.chart import CHART, install_crd
from tests.support.devcluster_client import ensure
from tests.support.prometheus import Prometheus
from tests.support.trained import POD_ADDRESS, Trainer, finish, report

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TEAM = "monitoring"
RULES = CHART / "rules" / "retrainer.yaml"


def boards() -> dict[str, Any]:
    return {p.stem: json.loads(p.read_text()) for p in (CHART / "dashboards").glob("*.json")}


def queries() -> list[Any]:
    """Dashboard, panel, expression and whether a single moment is asked for, of each query."""
    return [
        pytest.param(
            target["expr"],
            bool(target.get("instant")),
            id=f"{board}-{panel['title']}-{target['refId']}".replace(" ", "-"),
        )
        for board, body in sorted(boards().items())
        for panel in body["panels"]
        for target in panel.get("targets", ())
    ]


def rules() -> dict[str, str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def filled(expr: str, job: str = ".*") -> str:
    """The expression as Grafana sends it with everything chosen."""
    variables = {"$namespace": ".*", "$job": job, "$__rate_interval": "1m"}
    for name, value in variables.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, expr
    return expr


@dataclass
class World:
    """What the tests look at."""

    operator: Operator
    team: Namespace
    prometheus: Prometheus
    quick: dict[str, Any]

    def finite(self, expr: str, *, instant: bool = True) -> bool:
        """Whether the query returns at least one number."""
        series = (
            [[s["value"]] for s in self.prometheus.query(expr)]
            if instant
            else [s["values"] for s in self.prometheus.query_range(expr, seconds=30)]
        )
        return any(math.isfinite(float(value)) for values in series for _, value in values)

    def is_of(self, jobs: set[str], expr: str) -> bool:
        """Whether the expression returns these jobs; not so for a second after a late scrape."""
        return {s["metric"].get("name", "") for s in self.prometheus.query(expr)} == jobs


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("monitoring")
    with ensure("control-plane", name="monitoring", simulated_nodes=1) as cluster:
        install_crd(cluster)
        bed = Bed(cluster, folder)
        bed.rights()
        team = bed.namespace(TEAM)
        with bed.operator() as operator:
            eventually(operator.leads, what="leadership")
            try:
                yield from _watched(folder, operator, team)
            finally:
                cluster.kubectl("delete", "namespace", TEAM, "--wait=false")


def _watched(folder: Path, operator: Operator, team: Namespace) -> Iterator[World]:
    forever = {"delay": "never"}
    # It begins and ends before Prometheus is even started.
    quick = team.apply("quick", annotations=forever)
    finish(team, quick, report(quick))
    failed = team.apply("failed", annotations=forever)
    wrong = report(failed).model_copy(
        update={"reason": "BucketNotFound", "message": "Bucket photos (images) does not exist."}
    )
    finish(team, failed, wrong, code=64)

    running = team.apply("running", annotations=forever)
    pod = team.running("running")[0]["metadata"]["name"]
    trainer = Trainer(running)
    try:
        team.set_pod(pod, podIP=POD_ADDRESS, podIPs=[{"ip": POD_ADDRESS}])
        team.apply("waits", pod={"nodeSelector": {"disk": "none-such"}})
        team.until("waits", reason="Unschedulable")
        team.apply("queued", labels={"kueue.x-k8s.io/queue-name": "team-queue"})
        team.until("queued", reason="Queued")
        labels = {"namespace": TEAM, "pod": pod, "retrainer_dev_job": "running"}
        scrapes: list[dict[str, Any]] = [
            {
                "job_name": "retrainer-operator",
                "honor_labels": True,
                "static_configs": [{"targets": [f"127.0.0.1:{operator.metrics_port}"]}],
            },
            {
                "job_name": "retrainer-trainers",
                "static_configs": [
                    {"targets": [f"127.0.0.1:{trainer.reporter.port}"], "labels": labels}
                ],
            },
        ]
        with Prometheus(folder, scrapes, rules=RULES) as prometheus:
            world = World(operator, team, prometheus, quick)
            eventually(lambda: prometheus.query("retrainer_leader == 1"))
            # What is counted grows only from the first scrape on.
            low = team.apply(
                "low", annotations=forever, job_annotations={"retrainer.dev/min-accuracy": "0.95"}
            )
            finish(team, low, report(low, accuracy=0.83))
            unreadable = team.apply("unreadable", annotations=forever)
            finish(team, unreadable, report(unreadable, rejected=40))
            yield world
    finally:
        trainer.close()


# --- dashboards ---


@pytest.mark.parametrize(("expr", "instant"), queries())
def test_every_query_of_every_panel_returns_data(world: World, expr: str, instant: bool) -> None:
    eventually(lambda: world.finite(filled(expr), instant=instant), what=filled(expr))


def test_the_variables_offer_the_namespaces_and_jobs_that_there_are(world: World) -> None:
    wanted = {"namespace": {TEAM}, "job": {"quick", "failed", "running", "waits", "queued"}}
    asked = {
        variable["name"]: re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        for variable in boards()["jobs"]["templating"]["list"]
        if variable["type"] == "query"
    }
    assert set(asked) == set(wanted)

    def offered(label: str, selector: str, names: set[str]) -> bool:
        return names <= set(world.prometheus.label_values(label, selector))

    for name, parts in asked.items():
        assert parts is not None
        eventually(partial(offered, parts[2], filled(parts[1]), wanted[name]), what=name)


def test_the_whole_curve_of_a_job_that_ended_before_the_first_scrape_is_seen(world: World) -> None:
    status = world.team.status("quick")
    took = datetime.fromisoformat(status["completionTime"]) - datetime.fromisoformat(
        world.quick["metadata"]["creationTimestamp"]
    )
    print(f"the job took {took.total_seconds():.0f} s from its creation to its end")
    panels = [p for p in boards()["jobs"]["panels"] if p["type"] == "xychart"]
    curves: dict[str, dict[int, float]] = {}
    for panel in panels:
        (target,) = panel["targets"]
        assert target["instant"]
        assert target["format"] == "table"
        expr = filled(target["expr"], job="quick")
        for sample in eventually(partial(world.prometheus.query, expr), what=expr):
            of = sample["metric"]
            assert of["line"] == f"{TEAM} quick {of['metric']}"
            curves.setdefault(of["metric"], {})[int(of["step"])] = float(sample["value"][1])
    expected = {
        name: {p.step: value for p in report(world.quick).curve.points()
               if (value := getattr(p, name)) is not None}
        for name in ("training_accuracy", "validation_accuracy", "cross_entropy",
                     "validation_cross_entropy")
    }  # fmt: skip
    assert len(expected["training_accuracy"]) == 20
    assert curves == expected


def test_a_running_jobs_curve_has_at_most_20_points_and_the_latest_among_them(
    world: World,
) -> None:
    expr = 'retrainer_job_curve{name="running", metric="validation_accuracy"}'

    def enough() -> list[int]:
        steps = sorted(int(s["metric"]["step"]) for s in world.prometheus.query(expr))
        return steps if steps and steps[-1] > 400 else []

    steps = eventually(enough, within=180, what="forty evaluations")
    assert len(steps) <= 20


def test_the_figures_of_jobs_are_right(world: World) -> None:
    def value(expr: str) -> float:
        (sample,) = eventually(lambda: world.prometheus.query(expr), what=expr)
        return float(sample["value"][1])

    assert value('retrainer_job_test_accuracy{name="low"}') == 0.83
    assert value('retrainer_job_min_accuracy{name="low"}') == 0.95
    assert value('retrainer_job_images{name="unreadable", state="rejected"}') == 40
    assert value('retrainer_job_images_per_second{name="running"}') == 321.5
    assert value('retrainer_job_phase{name="failed"}') == 1
    for expr, names in (
        ('retrainer_job_reason{reason="BucketNotFound"}', {"failed"}),
        ("retrainer_job_finished_timestamp_seconds", {"quick", "failed", "low", "unreadable"}),
    ):
        eventually(partial(world.is_of, names, expr), what=expr)


# --- alerts ---

WHOM = {
    "RetrainJobFailed": {"failed"},
    "RetrainJobStuck": {"waits"},
    "RetrainJobAccuracyLow": {"low"},
    "RetrainJobImagesRejected": {"unreadable"},
}


@pytest.mark.parametrize("alert", WHOM)
def test_a_jobs_alert_returns_the_jobs_that_it_is_for(world: World, alert: str) -> None:
    eventually(partial(world.is_of, WHOM[alert], rules()[alert]), what=alert)


def test_prometheus_evaluates_every_rule_and_fires_for_those_jobs(world: World) -> None:
    def evaluated() -> bool:
        return all(rule["health"] == "ok" for rule in world.prometheus.rules())

    eventually(evaluated, what="the health of all rules")
    assert {rule["name"] for rule in world.prometheus.rules()} == set(rules())

    def alert_states() -> dict[str, set[tuple[str, str]]]:
        states: dict[str, set[tuple[str, str]]] = {}
        for alert in world.prometheus.alerts():
            labels = alert["labels"]
            assert "$" not in alert["annotations"]["summary"]
            one = (labels.get("name", ""), alert["state"])
            states.setdefault(labels["alertname"], set()).add(one)
        return states

    expected = {
        alert: {(name, "pending" if alert == "RetrainJobStuck" else "firing") for name in names}
        for alert, names in WHOM.items()
    }
    eventually(lambda: alert_states() == expected, what=f"{expected}")


def test_every_series_that_a_rule_reads_is_there(world: World) -> None:
    selectors = {
        selector
        for expr in rules().values()
        for selector in re.findall(r"retrainer_[a-z_]+(?:\{[^}]*\})?", expr)
    }
    assert len(selectors) > 10
    for selector in selectors:
        eventually(partial(world.finite, selector), what=selector)


def test_the_operators_alerts_are_silent_while_it_works(world: World) -> None:
    for alert in ("RetrainerOperatorNotLeading", "RetrainerOperatorNotReconciling"):
        eventually(partial(world.is_of, set(), rules()[alert]), what=alert)


def test_sixteen_minutes_without_a_full_list_would_be_told(world: World) -> None:
    # Nothing newer than now is known then, as if the operator had not listed since.
    expr = rules()["RetrainerOperatorNotReconciling"]
    (sample,) = eventually(lambda: world.prometheus.query(expr, after=16 * 60), what=expr)
    assert 900 < float(sample["value"][1]) < 1300


def test_the_series_of_a_deleted_job_go(world: World) -> None:
    world.team.delete("unreadable")
    expr = '{__name__=~"retrainer_job_.+", name="unreadable"}'
    eventually(lambda: not world.prometheus.query(expr), what=expr)


def test_an_operator_that_is_gone_is_told(world: World) -> None:
    world.operator.stop()
    expr = rules()["RetrainerOperatorNotLeading"]
    (sample,) = eventually(lambda: world.prometheus.query(expr), what=expr)
    assert float(sample["value"][1]) == 0
