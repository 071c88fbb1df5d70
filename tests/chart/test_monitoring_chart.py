"""Dashboards, monitors and rules as the chart installs them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import yaml
from tests.operator.objects import make_settings, parse_plain_job
from tests.support.chart import CHART, REPOSITORY, rendered

from retrainer_operator.planning import children

EVERYTHING = (
    "--set=monitoring.serviceMonitor.enabled=true",
    "--set=monitoring.podMonitor.enabled=true",
    "--set=monitoring.rules.enabled=true",
)


@cache
def installed() -> list[Any]:
    return rendered(*EVERYTHING)


def of_kind(kind: str) -> Any:
    (resource,) = [o for o in installed() if o["kind"] == kind]
    return resource


def boards() -> list[Any]:
    return [json.loads(p.read_text()) for p in sorted((CHART / "dashboards").glob("*.json"))]


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    named = selector.get("matchLabels", {})
    return all(labels.get(k) == v for k, v in named.items()) and all(
        (e["key"] in labels) == (e["operator"] == "Exists")
        for e in selector.get("matchExpressions", ())
    )


def test_the_dashboards_are_what_the_tool_would_write() -> None:
    tool = [sys.executable, str(REPOSITORY / "tools" / "dashboards.py"), "--check"]
    done = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.needs("helm")
def test_the_dashboards_are_config_maps_that_grafanas_sidecar_finds() -> None:
    maps = [o for o in rendered() if o["kind"] == "ConfigMap"]
    assert all(o["metadata"]["labels"]["grafana_dashboard"] == "1" for o in maps)
    shipped = {name: json.loads(text) for o in maps for name, text in o["data"].items()}
    assert shipped == {f"{board['uid']}.json": board for board in boards()}


@pytest.mark.needs("helm")
def test_the_sidecars_label_and_annotations_can_be_set_and_the_dashboards_left_out() -> None:
    folder = "--set=monitoring.dashboards.annotations.grafana_folder=Training"
    other = "--set=monitoring.dashboards.labels.team=ml"
    for config in (o for o in rendered(folder, other) if o["kind"] == "ConfigMap"):
        assert config["metadata"]["annotations"] == {"grafana_folder": "Training"}
        assert config["metadata"]["labels"]["team"] == "ml"
    without = rendered("--set=monitoring.dashboards.enabled=false")
    assert not [o for o in without if o["kind"] == "ConfigMap"]


@pytest.mark.needs("helm")
def test_nothing_needs_the_prometheus_operator_unless_asked_for() -> None:
    assert not [o for o in rendered() if o["apiVersion"].startswith("monitoring.coreos.com")]


@pytest.mark.needs("helm")
def test_the_rules_are_the_file_that_promtool_tests() -> None:
    text = (CHART / "rules" / "retrainer.yaml").read_text()
    assert of_kind("PrometheusRule")["spec"] == yaml.safe_load(text)


@pytest.mark.needs("helm")
def test_an_alert_leads_to_its_runbook_where_the_runbooks_are_published() -> None:
    base = "https://docs.example.com/runbooks.html"
    objects = rendered(*EVERYTHING, f"--set=monitoring.rules.runbookBaseUrl={base}")
    (rule,) = (o for o in objects if o["kind"] == "PrometheusRule")
    links = {
        rule["alert"]: rule["annotations"]["runbook_url"]
        for group in rule["spec"]["groups"]
        for rule in group["rules"]
    }

    assert links["RetrainJobFailed"] == f"{base}#retrainjobfailed"
    assert all(link == f"{base}#{alert.lower()}" for alert, link in links.items())
    published = (REPOSITORY / "docs" / "runbooks.md").read_text()
    assert all(f"## {alert}" in published for alert in links)


@pytest.mark.needs("helm")
def test_the_service_monitor_finds_the_operators_service_and_keeps_the_jobs_namespaces() -> None:
    monitor = of_kind("ServiceMonitor")
    services = [
        o for o in installed()
        if o["kind"] == "Service" and matches(monitor["spec"]["selector"], o["metadata"]["labels"])
    ]  # fmt: skip
    (service,) = services
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["honorLabels"] is True
    assert service["metadata"]["namespace"] == monitor["metadata"]["namespace"]


@pytest.mark.needs("helm")
def test_the_pod_monitor_finds_the_trainer_pods_by_what_the_operator_gives_them() -> None:
    monitor = of_kind("PodMonitor")
    job = children.train(parse_plain_job(), make_settings(), deadline=None)
    template = job["spec"]["template"]
    assert matches(monitor["spec"]["selector"], template["metadata"]["labels"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = template["spec"]["containers"][0]["ports"]
    assert endpoint["port"] in {port["name"] for port in ports}
    # What the dashboard's queries of pods select by, once Prometheus has replaced its . and /.
    assert monitor["spec"]["podTargetLabels"] == ["retrainer.dev/job"]


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("values", "where"),
    [((), {"any": True}), (("--set=namespaces={a,b}",), {"matchNames": ["a", "b"]})],
)
def test_the_pod_monitor_looks_where_the_operator_does(
    values: tuple[str, ...], where: dict[str, Any]
) -> None:
    monitor = next(o for o in rendered(*EVERYTHING, *values) if o["kind"] == "PodMonitor")
    assert monitor["spec"]["namespaceSelector"] == where


@pytest.mark.needs("helm")
def test_the_operators_service_has_plain_scrape_annotations_that_can_be_turned_off() -> None:
    def scrape_annotations(*values: str) -> Any:
        service = next(o for o in rendered(*values) if o["kind"] == "Service")
        return service["metadata"].get("annotations", {})

    assert scrape_annotations() == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": "/metrics",
    }
    assert scrape_annotations("--set=metrics.scrapeAnnotations=false") == {}


# --- what a user of Grafana sees ---


@pytest.mark.parametrize("board", boards(), ids=lambda b: str(b["uid"]))
def test_panels_fill_each_row_and_never_overlap(board: Any) -> None:
    taken: set[tuple[int, int]] = set()
    widths: dict[int, int] = {}
    heights: dict[int, set[int]] = {}
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        widths[at["y"]] = widths.get(at["y"], 0) + at["w"]
        heights.setdefault(at["y"], set()).add(at["h"])
    assert set(widths.values()) == {24}
    assert all(len(h) == 1 for h in heights.values())


@pytest.mark.parametrize("board", boards(), ids=lambda b: str(b["uid"]))
def test_every_panel_says_what_it_shows_in_which_unit_from_the_chosen_source(board: Any) -> None:
    panels = [p for p in board["panels"] if p["type"] != "row"]
    assert len({p["id"] for p in board["panels"]}) == len(board["panels"])
    assert len({p["title"] for p in panels}) == len(panels)
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        if panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs))


@pytest.mark.parametrize("name", ["namespace", "job"])
def test_everything_chosen_is_one_pattern_and_no_list_of_thousands_of_names(name: str) -> None:
    (board,) = [b for b in boards() if b["uid"] == "retrainer-jobs"]
    (variable,) = [v for v in board["templating"]["list"] if v["name"] == name]
    assert variable["includeAll"]
    assert variable["multi"]
    assert variable["allValue"] == ".*"
    assert variable["current"]["value"] == "$__all"


def test_the_steps_below_a_curve_are_numbers_and_not_percent() -> None:
    (board,) = [b for b in boards() if b["uid"] == "retrainer-jobs"]
    charts = [p for p in board["panels"] if p["type"] == "xychart"]
    assert {p["fieldConfig"]["defaults"]["unit"] for p in charts} == {"percentunit", "none"}
    for panel in charts:
        (x,) = [series["x"]["matcher"] for series in panel["options"]["series"]]
        (override,) = panel["fieldConfig"]["overrides"]
        assert override["matcher"] == x
        assert {"id": "unit", "value": "none"} in override["properties"]


def test_no_leader_is_a_red_0_also_when_nothing_is_scraped() -> None:
    (board,) = [b for b in boards() if b["uid"] == "retrainer-operator"]
    (panel,) = [p for p in board["panels"] if p["title"] == "Leaders"]
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(s["color"], s["value"]) for s in steps] == [("red", None), ("text", 1)]
    assert panel["targets"][0]["expr"] == "sum(retrainer_leader) or vector(0)"
