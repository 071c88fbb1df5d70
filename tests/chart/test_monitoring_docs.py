"""What the how-to page tells people to write is taken by Prometheus and by the chart."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.support.chart import CHART, REPOSITORY, rendered

from retrainer.api.names import ANNOTATION_MIN_ACCURACY

PAGE = (REPOSITORY / "docs" / "howto" / "monitoring.md").read_text()


def block(title: str) -> str:
    """The file of this title, as the page shows it."""
    match = re.search(
        rf'^```yaml title="{re.escape(title)}"\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL
    )
    assert match is not None
    return match[1]


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_configuration_with_the_rules_beside_it(tmp_path: Path) -> None:
    shutil.copy(CHART / "rules" / "retrainer.yaml", tmp_path)
    config = yaml.safe_load(block("prometheus.yml"))
    for job, role in zip(config["scrape_configs"], ("endpoints", "pod"), strict=True):
        # Debian's Prometheus is built without discovery in Kubernetes: all but that is checked.
        assert job.pop("kubernetes_sd_configs") == [{"role": role}]
        job["static_configs"] = [{"targets": ["127.0.0.1:1"]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        ["promtool", "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rule files found" in done.stdout


@pytest.mark.needs("helm")
def test_the_configuration_chooses_the_operators_service_by_labels_that_it_has() -> None:
    operator = yaml.safe_load(block("prometheus.yml"))["scrape_configs"][0]
    assert operator["honor_labels"] is True
    name, component, port = operator["relabel_configs"][0]["regex"].split(";")
    service = next(o for o in rendered() if o["kind"] == "Service")
    labels = service["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == name
    assert labels["app.kubernetes.io/component"] == component
    assert port in {p["name"] for p in service["spec"]["ports"]}


@pytest.mark.needs("helm")
def test_the_chart_takes_the_values_and_installs_monitors_and_rules(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(block("values.yaml"))
    objects = {o["kind"]: o for o in rendered("-f", str(tmp_path / "values.yaml"))}
    for kind in ("ServiceMonitor", "PodMonitor", "PrometheusRule"):
        assert objects[kind]["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_the_page_lists_every_alert_and_the_annotation() -> None:
    groups = yaml.safe_load((CHART / "rules" / "retrainer.yaml").read_text())["groups"]
    for name in (rule["alert"] for group in groups for rule in group["rules"]):
        assert f"[{name}](../runbooks.md#{name.lower()})" in PAGE
    assert ANNOTATION_MIN_ACCURACY in PAGE
