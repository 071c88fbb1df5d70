"""The alerts: valid, each fires when it should and only then, each with a page that says what to do."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "retrainer"
RULES = CHART / "rules" / "retrainer.yaml"
CASES = Path(__file__).with_name("rules-test.yaml")
RUNBOOKS = REPOSITORY / "docs" / "runbooks.md"


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str) -> str:
    """Run promtool, which has to succeed; return what it printed."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


NAMES = [alert["alert"] for alert in alerts()]


def test_the_alerts_are_those_that_the_runbooks_are_written_for() -> None:
    assert sorted(NAMES) == [
        "RetrainJobAccuracyLow",
        "RetrainJobFailed",
        "RetrainJobImagesRejected",
        "RetrainJobStuck",
        "RetrainerOperatorNotLeading",
        "RetrainerOperatorNotReconciling",
    ]


@pytest.mark.needs("promtool")
def test_prometheus_takes_the_rules() -> None:
    assert f"{len(NAMES)} rules found" in promtool("check", "rules", str(RULES))


@pytest.mark.needs("promtool")
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


@pytest.mark.parametrize("name", NAMES)
def test_there_is_a_case_in_which_it_fires_and_one_in_which_it_does_not(name: str) -> None:
    tests = yaml.safe_load(CASES.read_text())["tests"]
    asserted = [
        bool(case["exp_alerts"])
        for test in tests
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert set(asserted) == {True, False}


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("finished_timestamp_seconds < 3600", "finished_timestamp_seconds < 36000"),
        ('unless on (namespace, name) retrainer_job_reason{reason="Queued"}', ""),
        ("and on (namespace, name) retrainer_job_created_timestamp_seconds", ""),
        ("[5m]", "[1h]"),
        ("< on (namespace, name) max by", "> on (namespace, name) max by"),
        ("0.01 * max", "0.001 * max"),
        (">= 3600", ">= 36000"),
        (" or vector(0)", ""),
        ("> 900", "> 90"),
        ('+ sum(increase(retrainer_reconciles_total{result!="ok"}[10m]))', ""),
        ("{result!=", "{result="),
        ("sum(retrainer_queue_depth and on (instance) retrainer_leader == 1)", "0"),
        ("for: 15m", "for: 30m"),
        ("for: 2m", "for: 20m"),
    ],
)
def test_a_wrong_rule_is_caught(right: str, wrong: str, tmp_path: Path) -> None:
    text = RULES.read_text()
    assert right in text
    (tmp_path / "rules.yaml").write_text(text.replace(right, wrong))
    cases = CASES.read_text().replace("../../charts/retrainer/rules/retrainer.yaml", "rules.yaml")
    (tmp_path / "cases.yaml").write_text(cases)
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "cases.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "FAILED" in done.stdout + done.stderr


def test_the_longest_interval_of_the_full_list_leaves_the_alert_time() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    longest = schema["properties"]["operator"]["properties"]["resyncSeconds"]["maximum"]
    (rule,) = (a for a in alerts() if a["alert"] == "RetrainerOperatorNotReconciling")
    threshold = int(re.findall(r"retrainer_leader == 1\) > (\d+)", rule["expr"])[0])
    assert longest + 300 <= threshold, "the list itself may take minutes"


@pytest.mark.parametrize("alert", alerts(), ids=NAMES)
def test_an_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("info", "warning", "critical")
    texts = alert["annotations"]
    assert set(texts) == {"summary", "description"}
    assert texts["description"].endswith(".")
    sections = re.split(r"^## ", RUNBOOKS.read_text(), flags=re.MULTILINE)
    anchors = {section.split("\n", 1)[0].strip().lower(): section for section in sections[1:]}
    section = anchors[alert["alert"].lower()]
    for part in ("**What it means.**", "**How to see.**", "**What to do.**"):
        assert part in section, f"{alert['alert']}: {part}"
