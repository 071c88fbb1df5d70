"""The operator on a real API server, pods played by kwok: lives, suspension, failures, deletion."""

from __future__ import annotations

import http.server
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import ApiException
from tests.operator import objects
from tests.operator.harness import Bed, Namespace, Operator, eventually
from tests.support.chart import install_crd

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def operator(bed: Bed) -> Iterator[Operator]:
    with bed.operator() as operator:
        yield operator


@pytest.fixture
def team(bed: Bed, operator: Operator, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    parts = re.findall("[a-z0-9]+", request.node.name.lower())[1:7]
    team = bed.team("t-" + "-".join(parts)[:40].strip("-"))
    yield team
    bed.cluster.kubectl("delete", "namespace", team.name, "--wait=false")


def _final(job: dict[str, Any]) -> str:
    """What a train pod of this job would leave."""
    report = json.loads(objects.FINAL)
    return json.dumps({**report, "uid": job["metadata"]["uid"], "name": job["metadata"]["name"]})


def test_a_whole_life_with_few_writes_and_kubectl_wait(bed: Bed, team: Namespace) -> None:
    job = team.apply("flowers", annotations={"delay": "never"})
    team.until("flowers", phase="Bottlenecks", reason="Running")
    team.end_pods("flowers", message=_final(job))
    bed.cluster.kubectl(
        "wait", "--for=condition=Complete", "rj/flowers", "-n", team.name, "--timeout=60s"
    )
    status = team.status("flowers")
    assert status["phase"] == "Succeeded"
    assert status["metrics"]["testAccuracy"] == 0.8876
    assert status["startTime"] <= status["completionTime"]
    reasons = eventually(
        lambda: [r for r in [{e["reason"] for e in team.events("flowers")}] if len(r) == 2]
    )
    assert reasons == [{"JobCreated", "Succeeded"}]
    writes = bed.writes(namespace=team.name)
    requests = [
        (w["verb"], w["objectRef"]["resource"], w["objectRef"].get("subresource")) for w in writes
    ]
    assert len(writes) <= 8, requests


def test_shards_first_then_training_and_the_bottlenecks_stay(team: Namespace) -> None:
    job = team.apply("sharded", shards=3, annotations={"delay": "never"})
    team.until("sharded", phase="Bottlenecks", reason="Running")
    assert [c["metadata"]["name"] for c in team.children()] == ["sharded-bottlenecks"]
    team.end_pods("sharded", count=3)
    team.until("sharded", phase="Training")
    assert {c["metadata"]["name"] for c in team.children()} == {
        "sharded-bottlenecks", "sharded-train",
    }  # fmt: skip
    team.end_pods("sharded", message=_final(job))
    status = team.until("sharded", phase="Succeeded", reason="Succeeded")
    assert {c["type"] for c in status["conditions"]} == {"BottlenecksReady", "Complete"}


def test_suspend_and_resume_in_every_phase(team: Namespace) -> None:
    job = team.apply("nap", shards=2, suspend=True, annotations={"delay": "never"})
    status = team.until("nap", phase="Suspended")
    assert team.children() == []
    assert "startTime" not in status
    team.edit("nap", suspend=False)
    status = team.until("nap", phase="Bottlenecks", reason="Running")
    first = status["startTime"]

    team.edit("nap", suspend=True)
    team.until("nap", phase="Suspended")
    eventually(lambda: not team.pods("nap"), what="no pod left")
    team.edit("nap", suspend=False)
    team.until("nap", phase="Bottlenecks", reason="Running")
    # The pods may run a moment before the Job controller gives their Job a time again.
    eventually(lambda: team.status("nap").get("startTime", "") >= first, what="a later start")
    team.end_pods("nap", count=2)
    team.until("nap", phase="Training")

    shards = team.child("nap-bottlenecks")
    team.edit("nap", suspend=True)
    team.until("nap", phase="Suspended")
    eventually(lambda: not [p for p in team.pods("nap") if "train" in p["metadata"]["name"]])
    team.edit("nap", suspend=False)
    team.until("nap", phase="Training", reason="Running")
    kept = team.child("nap-bottlenecks")
    assert kept is not None
    assert shards is not None
    assert kept["metadata"]["uid"] == shards["metadata"]["uid"]
    team.end_pods("nap", message=_final(job))
    status = team.until("nap", phase="Succeeded")
    suspended = next(c for c in status["conditions"] if c["type"] == "Suspended")
    assert suspended["status"] == "False"


def test_exit_64_is_told_in_the_trainers_words_and_not_retried(team: Namespace) -> None:
    job = team.apply("wrong", annotations={"delay": "never"})
    report = {
        "task": "train",
        "name": "wrong",
        "uid": job["metadata"]["uid"],
        "reason": "BucketNotFound",
        "message": "Bucket photos (images) does not exist.",
    }
    team.end_pods("wrong", code=64, message=json.dumps(report))
    status = team.until("wrong", phase="Failed", reason="BucketNotFound")
    assert status["message"] == "Bucket photos (images) does not exist."
    assert len(team.pods("wrong")) == 1


def test_a_failed_pod_is_tried_again_and_the_last_failure_told(team: Namespace) -> None:
    team.apply("oom", backoffLimit=0, annotations={"exit-code": "137", "reason": "OOMKilled"})
    status = team.until("oom", phase="Failed", reason="OOMKilled")
    assert "was killed for using more memory than its limit of 4Gi." in status["message"]
    team.apply("again", backoffLimit=1, annotations={"exit-code": "1", "message": "no route"})
    status = team.until("again", reason="Retrying")
    assert status["message"].endswith("failed and is tried again: exit code 1: no route.")
    status = team.until("again", phase="Failed")
    assert status["message"] == "Failed 2 times; the last pod: exit code 1: no route."


def test_the_deadline_ends_a_job_and_an_edited_one_holds(team: Namespace) -> None:
    team.apply("late", activeDeadlineSeconds=600, annotations={"delay": "never"})
    team.until("late", phase="Bottlenecks")
    team.edit("late", activeDeadlineSeconds=3)
    status = team.until("late", phase="Failed", reason="DeadlineExceeded")
    assert status["message"] == "Not finished within activeDeadlineSeconds (3 s)."


def test_a_finished_job_goes_after_its_ttl_with_its_children(team: Namespace) -> None:
    team.apply("brief", ttlSecondsAfterFinished=2)
    # Its last status may be too short to be seen; the Event of its end stays.
    eventually(lambda: team.job("brief") is None, what="the job is deleted")
    eventually(lambda: "ReportLost" in {event["reason"] for event in team.events("brief")})
    eventually(lambda: not team.children() and not team.pods("brief"), what="nothing is left")


@pytest.mark.parametrize(
    ("pod", "waiting", "reason"),
    [
        ({"nodeSelector": {"disk": "none-such"}}, None, "Unschedulable"),
        ({}, ("ImagePullBackOff", "Back-off pulling image"), "ImagePullFailed"),
        ({}, ("CreateContainerConfigError", 'secret "keys" not found'), "SecretMissing"),
    ],
)
def test_waiting_is_told_and_is_no_failure(
    bed: Bed, team: Namespace, pod: Any, waiting: tuple[str, str] | None, reason: str
) -> None:
    name = reason.lower()
    team.apply(name, storage={"secretName": "keys"}, annotations={"delay": "never"}, pod=pod)
    if waiting:
        (running,) = team.running(name)
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
        team.set_pod(
            running["metadata"]["name"],
            # Annotated, so that kwok, which makes pending pods run, leaves it as it is.
            phase="Running",
            containerStatuses=[{"name": "trainer", "image": "x", "imageID": "", "ready": False,
                                "restartCount": 0, "state": state}],
        )  # fmt: skip
    status = team.until(name, reason=reason)
    assert status["phase"] in ("Pending", "Bottlenecks")
    printed = bed.cluster.kubectl("get", "rj", name, "-n", team.name, "-o", "wide")
    assert status["message"] in printed
    assert reason in bed.cluster.kubectl("describe", "rj", name, "-n", team.name)


def test_a_used_up_quota_is_told_and_the_job_goes_on_once_it_is_raised(team: Namespace) -> None:
    path = f"/api/v1/namespaces/{team.name}/resourcequotas"
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    team.api.call("POST", path, quota)
    # Before it is counted, pods are refused as well, but in other words.
    eventually(lambda: team.api.call("GET", f"{path}/none").get("status"), what="it is counted")
    team.apply("poor")
    status = team.until("poor", reason="QuotaExceeded", within=120)
    assert "exceeded quota: none" in status["message"]
    assert status["phase"] == "Pending"
    team.api.call("DELETE", f"{path}/none")
    team.until("poor", phase="Succeeded", within=180)  # the Job controller tries once a minute


def test_a_taken_name_is_left_alone_until_it_is_free(team: Namespace) -> None:
    pod = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
    other = {
        "metadata": {"name": "mine-train"},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    created = team.api.call("POST", f"/apis/batch/v1/namespaces/{team.name}/jobs", other)
    team.apply("mine")
    status = team.until("mine", reason="NameTaken")
    assert status["message"] == (
        "A Job named mine-train exists and belongs to no RetrainJob; it is left alone."
    )
    child = team.child("mine-train")
    assert child is not None
    assert child["spec"] == created["spec"]
    assert "ownerReferences" not in child["metadata"]
    team.api.call(
        "DELETE",
        f"/apis/batch/v1/namespaces/{team.name}/jobs/mine-train",
        propagationPolicy="Background",
    )
    team.until("mine", phase="Succeeded")


def test_a_job_made_again_under_its_name_waits_for_the_old_ones_children(team: Namespace) -> None:
    first = team.apply("twin", annotations={"delay": "never"})
    team.until("twin", phase="Bottlenecks")
    team.delete("twin")
    second = team.apply("twin")
    status = team.until("twin", phase="Succeeded")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    assert second["metadata"]["uid"][:8] in status["run"]


def _taken(team: Namespace) -> bool:
    """The API server takes a new schema over a moment after it was written."""
    try:
        team.apply("strange", architecture="resnet_50")
    except ApiException:
        return False
    return True


def test_an_invalid_job_fails_alone(bed: Bed, team: Namespace) -> None:
    """As of a CRD that is newer than the operator: the rule is taken away for a moment."""
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/retrainjobs.retrainer.dev"
    kept = bed.api.call("GET", crd)
    loose = json.loads(json.dumps(kept))
    schema = loose["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["architecture"] = {"type": "string"}
    schema["properties"]["spec"].pop("x-kubernetes-validations", None)
    loose["metadata"].pop("managedFields", None)
    bed.api.call("PUT", crd, loose)
    try:
        eventually(lambda: _taken(team), what="the looser schema")
        status = team.until("strange", phase="Failed", reason="InvalidSpec")
        assert status["message"].startswith("spec.architecture: must be mobilenet_")
    finally:
        install_crd(bed.cluster)
    team.apply("sane")
    team.until("sane", phase="Succeeded")


def test_what_is_not_allowed_fails_with_its_sentence(team: Namespace) -> None:
    team.apply("greedy", pod={"serviceAccountName": "admin"})
    status = team.until("greedy", phase="Failed", reason="NotAllowed")
    assert status["message"].startswith("spec.pod.serviceAccountName admin is not one of")
    assert team.children() == []


def test_kueues_part_of_the_contract(team: Namespace) -> None:
    """A stand-in admits and evicts as Kueue does: it alone writes the Job's suspend."""
    job = team.apply(
        "queued", labels={"kueue.x-k8s.io/queue-name": "gpus"}, annotations={"delay": "never"}
    )
    path = f"/apis/batch/v1/namespaces/{team.name}/jobs/queued-train"
    status = team.until("queued", phase="Pending", reason="Queued")
    assert status["message"] == "Job queued-train waits in Kueue queue gpus."
    child = team.child("queued-train")
    assert child is not None
    assert child["spec"]["suspend"] is True
    assert child["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    team.api.call("PATCH", path, {"spec": {"suspend": False}})
    team.until("queued", phase="Bottlenecks")
    team.api.call("PATCH", path, {"spec": {"suspend": True}})
    team.until("queued", phase="Pending", reason="Queued")
    team.edit("queued", suspend=True)
    team.until("queued", phase="Suspended")
    eventually(lambda: team.child("queued-train") is None, what="the child is deleted")
    team.edit("queued", suspend=False)
    team.until("queued", reason="Queued")
    child = eventually(lambda: team.child("queued-train"))
    assert child["spec"]["suspend"] is True
    team.api.call("PATCH", path, {"spec": {"suspend": False}})
    team.until("queued", phase="Bottlenecks")
    team.end_pods("queued", message=_final(job))
    team.until("queued", phase="Succeeded")


class _Reports(http.server.BaseHTTPRequestHandler):
    """A trainer's /report."""

    answer = b"{}"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(type(self).answer)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_live_reports_of_pods_are_in_the_status_and_in_the_metrics(
    operator: Operator, team: Namespace
) -> None:
    job = team.apply(
        "live",
        annotations={"delay": "never"},
        job_annotations={"retrainer.dev/min-accuracy": "0.85"},
    )
    team.until("live", phase="Bottlenecks")
    (pod,) = team.running("live")
    curve = {"step": [0, 100], "validationAccuracy": [0.2, 0.8], "trainingAccuracy": [0.2, 0.9],
             "crossEntropy": [1.6, 0.3], "validationCrossEntropy": [1.6, 0.5]}  # fmt: skip
    report = {"task": "train", "name": "live", "uid": job["metadata"]["uid"], "stage": "Training",
              "progress": {"percent": 60, "step": 100, "steps": 500, "imagesTotal": 10,
                           "imagesCached": 4, "imagesComputed": 6, "imagesRejected": 0},
              "metrics": {"validationAccuracy": 0.8, "trainingAccuracy": 0.9},
              "curve": curve, "imagesPerSecond": 321.5}  # fmt: skip
    _Reports.answer = json.dumps(report).encode()
    server = http.server.ThreadingHTTPServer(("127.0.0.77", 9464), _Reports)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        name = pod["metadata"]["name"]
        team.set_pod(name, podIP="127.0.0.77", podIPs=[{"ip": "127.0.0.77"}])
        status = team.until("live", phase="Training")
        assert status["message"] == "Training the head: step 100 of 500."
        assert status["progress"]["percent"] == 60
        assert status["metrics"]["validationAccuracy"] == 0.8
        who = f'namespace="{team.name}",name="live"'
        # The page has the new phase a moment after the API server, when it has been watched.
        phase = f'retrainer_job_phase{{{who},phase="Training"}} 1\n'
        page = eventually(lambda: p if phase in (p := operator.metrics()) else None, what=phase)
        assert f"retrainer_job_validation_accuracy{{{who}}} 0.8\n" in page
        assert f"retrainer_job_min_accuracy{{{who}}} 0.85\n" in page
        assert f"retrainer_job_images_per_second{{{who}}} 321.5\n" in page
        assert f'retrainer_job_curve{{{who},metric="validation_accuracy",step="100"}} 0.8\n' in page
    finally:
        server.shutdown()
        server.server_close()
    team.end_pods("live", message=_final(job))
    team.until("live", phase="Succeeded")
    team.delete("live")
    eventually(lambda: who not in operator.metrics(), what="its series are gone")
