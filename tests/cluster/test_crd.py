"""The CRD on a real API server: what it refuses and how, what it fills in, what may change."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from tests.support.chart import REPOSITORY, get
from tests.support.devcluster_client import DevCluster

from retrainer.api import RetrainJobSpec, architectures, parse_job
from retrainer.api.names import GROUP, PLURAL, VERSION
from retrainer.api.rules import MUTABLE
from retrainer.errors import InvalidJob

pytestmark = pytest.mark.cluster

Job = dict[str, Any]
RIGHT: Job = {
    "apiVersion": "retrainer.dev/v1alpha1",
    "kind": "RetrainJob",
    "metadata": {"name": "flowers"},
    "spec": {
        "architecture": "mobilenet_0.50_224",
        "images": "s3://photos/flower_photos",
        "output": "s3://models/flowers",
    },
}
INVALID = yaml.safe_load((Path(__file__).parent / "invalid_jobs.yaml").read_text())
# The field names itself in these, and the path is that of the object around it.
_NAMED_BY_PARENT = {"unknown field", "keys must be"}


class Api:
    """RetrainJobs of one namespace, unknown fields refused as kubectl does."""

    def __init__(self, cluster: DevCluster) -> None:
        self.cluster = cluster
        configured = config.new_client_from_config(str(cluster.kubeconfig))
        self._objects = client.CustomObjectsApi(configured)
        self._where = (GROUP, VERSION, "crd-tests", PLURAL)

    def create(self, job: Job, **options: Any) -> Job:
        kept: Job = self._objects.create_namespaced_custom_object(
            *self._where, job, field_validation="Strict", **options
        )
        return kept

    def refusal(self, job: Job) -> str:
        """The API server's sentence; it has to refuse."""
        with pytest.raises(ApiException) as refused:
            self.create(job, dry_run="All")
        return _message(refused.value)

    def change(self, name: str, spec: Job, **options: Any) -> Job:
        body = {"spec": spec}
        kept: Job = self._objects.patch_namespaced_custom_object(
            *self._where, name, body, field_validation="Strict", **options
        )
        return kept

    def report(self, name: str, status: Job) -> None:
        body = {"status": status}
        self._objects.patch_namespaced_custom_object_status(*self._where, name, body)

    def clear(self) -> None:
        self._objects.delete_collection_namespaced_custom_object(*self._where)


def _message(error: ApiException) -> str:
    return str(json.loads(error.body)["message"])


@pytest.fixture(scope="module")
def api(control_plane: DevCluster) -> Iterator[Api]:
    control_plane.kubectl("create", "namespace", "crd-tests")
    yield Api(control_plane)
    control_plane.kubectl("delete", "namespace", "crd-tests", "--wait=false")


def _with(job: Job, path: str, value: Any) -> None:
    """Set the field at `path`, making the objects on the way; an index stands for the whole list."""
    *parents, last = re.sub(r"\[.*", "", path).split(".")
    for name in parents:
        job = job.setdefault(name, {})
    job[last] = value


def _without(job: Job, path: str) -> None:
    *parents, last = path.split(".")
    for name in parents:
        job = job[name]
    del job[last]


def _wrong(entry: Job) -> Job:
    job = copy.deepcopy(RIGHT)
    for path, value in entry.get("with", {}).items():
        _with(job, path, value)
    if "got" not in entry:
        _without(job, entry["at"])
    else:
        long = "s3://photos/" + "x" * 1100
        _with(job, entry["at"], long if entry["got"] == "LONG_URL" else entry["got"])
    return job


def _title(entry: Job) -> str:
    return f"{entry['at']}={json.dumps(entry['got'])}"[:60] if "got" in entry else entry["at"]


@pytest.mark.parametrize("entry", INVALID, ids=_title)
def test_the_api_server_refuses_a_wrong_field_with_its_sentence(api: Api, entry: Job) -> None:
    message = api.refusal(_wrong(entry))
    assert entry["cluster"] in message
    if not any(part in message for part in _NAMED_BY_PARENT):
        assert entry["at"] in message


@pytest.mark.parametrize("entry", [e for e in INVALID if e["python"]], ids=_title)
def test_the_python_api_refuses_it_too(entry: Job) -> None:
    with pytest.raises(InvalidJob) as refused:
        parse_job(_wrong(entry))
    assert entry["python"] in str(refused.value)
    assert entry["at"] in str(refused.value)


@pytest.mark.parametrize("entry", [e for e in INVALID if not e["python"]], ids=_title)
def test_what_only_a_cluster_refuses_runs_on_ones_own_machine(entry: Job) -> None:
    parse_job(_wrong(entry))


def test_the_table_holds_at_least_a_hundred_invalid_jobs_of_every_field() -> None:
    assert len(INVALID) >= 100
    touched = {part for entry in INVALID for part in re.split(r"[.\[]", entry["at"])}
    fields = {field.alias for field in RetrainJobSpec.model_fields.values()}
    assert fields - touched == set()


@pytest.mark.parametrize("name", architectures.ARCHITECTURES)
def test_every_architecture_is_accepted(api: Api, name: str) -> None:
    job = copy.deepcopy(RIGHT)
    job["spec"]["architecture"] = name
    assert api.create(job, dry_run="All")["spec"]["architecture"] == name


def test_a_name_of_46_characters_is_accepted(api: Api) -> None:
    job = copy.deepcopy(RIGHT)
    job["metadata"]["name"] = "x" * 46
    api.create(job, dry_run="All")


def test_the_api_server_fills_in_the_same_defaults_as_the_python_api(api: Api) -> None:
    kept = api.create(RIGHT, dry_run="All")
    assert kept["spec"] == parse_job(RIGHT).spec.dump()


@pytest.mark.parametrize(
    "spec",
    [
        {"distortions": {"flipLeftRight": True}},
        {"training": {"earlyStopping": {"patience": 5}, "learningRate": 1}},
        {"pod": {"resources": {"limits": {"memory": "2Gi", "cpu": 2}}}},
        {"pod": {"tolerations": [{"operator": "Exists"}, {"key": "gpu", "value": "1"}]}},
        {"pod": {"affinity": {"nodeAffinity": {}}, "labels": {"example.com/team": "a"}}},
        {"training": None, "export": None, "pod": {"labels": None}},
        {"training": {"steps": None, "learningRate": 1e-9}, "weights": "s3://weights"},
        {"split": {"testingPercentage": 0}, "storage": {"endpoint": "http://s3.storage:7070"}},
    ],
    ids=json.dumps,
)
def test_defaults_inside_of_given_objects_are_the_same_too(api: Api, spec: Job) -> None:
    job = copy.deepcopy(RIGHT)
    job["spec"] |= spec
    kept = api.create(job, dry_run="All")
    assert kept["spec"] == parse_job(job).spec.dump()


def test_what_the_python_api_dumps_is_accepted_as_it_is(api: Api) -> None:
    kept = api.create(parse_job(RIGHT).dump(), dry_run="All")
    assert kept["spec"] == parse_job(RIGHT).spec.dump()


def _documents() -> Iterator[Any]:
    """RetrainJobs of examples/ and of the code blocks in the documentation."""
    for file in sorted((REPOSITORY / "examples").glob("*.yaml")):
        for number, text in enumerate(re.split(r"(?m)^---\s*$", file.read_text())):
            yield pytest.param(text, id=f"{file.name}-{number}")
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    for page in pages:
        blocks = re.findall(
            r"^ *```ya?ml[^\n]*\n(.*?)^ *```", page.read_text(), flags=re.MULTILINE | re.DOTALL
        )
        for number, block in enumerate(blocks):
            if re.search(r"(?m)^ *kind: RetrainJob\b", block):
                yield pytest.param(block, id=f"{page.name}-{number}")


@pytest.mark.parametrize("text", list(_documents()))
def test_every_retrainjob_of_the_examples_and_the_documentation_is_accepted(
    api: Api, text: str
) -> None:
    jobs = [d for d in yaml.safe_load_all(text) if d and d.get("kind") == "RetrainJob"]
    for job in jobs:
        parse_job(job)
        job["metadata"].pop("namespace", None)
        if job["spec"]["images"].startswith("s3://"):
            api.create(job, dry_run="All")


def test_a_manifest_stands_for_the_images_and_the_output_may_lie_beside_it(api: Api) -> None:
    job = copy.deepcopy(RIGHT)
    del job["spec"]["images"]
    job["spec"]["manifest"] = "s3://models/list.csv"
    api.create(job, dry_run="All")
    assert parse_job(job).spec.images == "s3://models"


# --- changes ---
CHANGES: Job = {
    "architecture": "inception_v3",
    "backbone": {"url": "s3://other/vit"},
    "images": "s3://other/photos",
    "manifest": "s3://other/list.csv",
    "corrections": "s3://other/corrections.csv",
    "output": "s3://other/models",
    "cache": "s3://other/cache",
    "weights": "s3://other/weights",
    "storage": {"region": "eu-central-1"},
    "shards": 2,
    "split": {"testingPercentage": 20},
    "training": {"steps": 500},
    "distortions": {"flipLeftRight": True},
    "findings": {"enabled": False},
    "export": ["tflite"],
    "maxRejectedFraction": 0.5,
    "backoffLimit": 5,
    "pod": {"affinity": {"nodeAffinity": {"x": [1]}}},
}


@pytest.fixture
def flowers(api: Api) -> Iterator[str]:
    api.create(RIGHT)
    yield "flowers"
    api.clear()


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_that_decides_the_result_cannot_change(api: Api, flowers: str, field: str) -> None:
    with pytest.raises(ApiException) as refused:
        api.change(flowers, {field: CHANGES[field]})
    inner = (
        "." + next(iter(CHANGES[field]))
        if field in ("findings", "pod", "split", "storage", "training")
        else ""
    )
    name = inner.removeprefix(".") or field
    assert (
        f"spec.{field}{inner}: Forbidden: {name} is immutable: create a new RetrainJob to change it "
        "(only suspend, ttlSecondsAfterFinished and activeDeadlineSeconds may change)"
    ) in _message(refused.value)


@pytest.mark.parametrize(
    "field", ["cache", "distortions", "manifest", "pod", "storage", "training"]
)
def test_a_field_that_decides_the_result_cannot_be_taken_away(api: Api, field: str) -> None:
    job = copy.deepcopy(RIGHT)
    job["spec"][field] = CHANGES[field]
    api.create(job)
    try:
        with pytest.raises(ApiException) as refused:
            api.change("flowers", {field: None})
        message = _message(refused.value)
        assert f"spec.{field}" in message
        assert "is immutable: create a new RetrainJob" in message
    finally:
        api.clear()


def test_every_field_is_either_tried_here_or_may_change() -> None:
    fields = {field.alias for field in RetrainJobSpec.model_fields.values()}
    assert fields == set(CHANGES) | set(MUTABLE)


def test_suspend_ttl_and_deadline_may_be_set_changed_and_taken_away(api: Api, flowers: str) -> None:
    for spec in (
        {"suspend": True, "ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 600},
        {"suspend": False, "ttlSecondsAfterFinished": 0, "activeDeadlineSeconds": 1200},
        {"ttlSecondsAfterFinished": None, "activeDeadlineSeconds": None},
    ):
        kept = api.change(flowers, spec)["spec"]
        assert {name: kept.get(name) for name in spec} == spec


def test_naming_a_default_is_no_change(api: Api, flowers: str) -> None:
    whole = parse_job(RIGHT).spec.dump()
    assert api.change(flowers, whole)["spec"] == whole


# --- what a status may hold ---
@pytest.mark.parametrize("lacks", ["reason", "message", "lastTransitionTime"])
def test_a_condition_without_one_of_its_fields_is_refused(
    api: Api, flowers: str, lacks: str
) -> None:
    condition = {
        "type": "Complete",
        "status": "True",
        "reason": "Succeeded",
        "message": "Done.",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    whole: Job = {"phase": "Succeeded", "conditions": [condition]}
    api.report(flowers, whole)
    cut: Job = {"conditions": [{k: v for k, v in condition.items() if k != lacks}]}
    with pytest.raises(ApiException) as refused:
        api.report(flowers, cut)
    assert refused.value.status == 422
    assert lacks in (refused.value.body or "")


def test_one_export_cannot_be_asked_for_twice(api: Api) -> None:
    spec = {**RIGHT["spec"], "export": ["tflite", "tflite"]}
    with pytest.raises(ApiException) as refused:
        api.create({**RIGHT, "metadata": {"name": "twice"}, "spec": spec})
    assert refused.value.status == 422
    assert "spec.export" in (refused.value.body or "")


# --- what people see ---
def test_kubectl_get_shows_phase_progress_accuracy_and_cache(api: Api, flowers: str) -> None:
    status: Job = {
        "phase": "Succeeded",
        "message": "Test accuracy 0.8876 on 165 images.",
        "progress": {
            "percent": 100,
            "imagesTotal": 1498,
            "imagesCached": 1498,
            "cachedPercent": 100,
            "complete": "100%",
            "cached": "100%",
        },
        "metrics": {"testAccuracy": 0.8876, "accuracy": "88.8%"},
        "findings": {"labels": 26, "leaks": 1, "duplicates": 3, "strangers": 0, "total": 30},
    }
    api.report(flowers, status)
    head, row = api.cluster.kubectl("get", "rj", "-n", "crd-tests").splitlines()
    assert head.split() == ["NAME", "PHASE", "PROGRESS", "ACCURACY", "CACHED", "AGE"]
    assert row.split()[:5] == ["flowers", "Succeeded", "100%", "88.8%", "100%"]
    wide = api.cluster.kubectl("get", "rj", "-n", "crd-tests", "-o", "wide").splitlines()
    assert wide[0].split()[6:] == [
        "ARCHITECTURE", "BACKBONE", "OUTPUT", "FINDINGS", "MESSAGE",
    ]  # fmt: skip
    assert wide[1].endswith(status["message"])


def test_jobs_can_be_selected_by_phase_and_are_among_all(api: Api, flowers: str) -> None:
    api.report(flowers, {"phase": "Training"})
    for phase, names in (("Training", ["flowers"]), ("Failed", [])):
        listed = get(api.cluster, "rj", "-n", "crd-tests", f"--field-selector=status.phase={phase}")
        assert [item["metadata"]["name"] for item in listed["items"]] == names
    assert "retrainjob.retrainer.dev/flowers" in api.cluster.kubectl(
        "get", "all", "-n", "crd-tests", "-o", "name"
    )


def test_a_job_that_no_operator_has_seen_says_so_whatever_it_was_created_with(api: Api) -> None:
    api.create(RIGHT | {"metadata": {"name": "unseen"}, "status": {"phase": "Succeeded"}})
    try:
        row = api.cluster.kubectl("get", "rj", "unseen", "-n", "crd-tests", "-o", "wide")
        kept = get(api.cluster, "rj", "unseen", "-n", "crd-tests")
    finally:
        api.cluster.kubectl("delete", "rj", "unseen", "-n", "crd-tests")
    assert row.splitlines()[1].split()[1] == "Pending"
    assert row.rstrip().endswith("No operator has taken this job up yet.")
    assert kept["status"] == {
        "phase": "Pending",
        "reason": "WaitingForOperator",
        "message": "No operator has taken this job up yet.",
    }


def test_kubectl_explain_describes_every_field_of_the_spec(api: Api) -> None:
    text = api.cluster.kubectl("explain", "retrainjob.spec", "--recursive=false")
    explanation = " ".join(text.split())
    for field in RetrainJobSpec.model_fields.values():
        assert field.description
        assert f"{field.alias} <" in explanation
        assert " ".join(field.description.split()) in explanation


def test_the_generated_file_in_the_chart_is_up_to_date() -> None:
    tool = [sys.executable, str(REPOSITORY / "tools" / "crd.py"), "--check"]
    checked = subprocess.run(tool, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
