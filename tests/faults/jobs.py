"""Faults of the menu that hit a job: its children, its pods, their nodes, and upgrades while it runs.

No kubelet runs here: kwok plays the pods, and what only a kubelet would find (memory used up, an image
that is missing) is written into a pod's status as a kubelet writes it. Eviction, taints, deleted nodes
and the scheduler are Kubernetes' own.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from kubernetes.client import ApiException
from tests.faults.scene import PATIENCE, Body, Entry, Scene
from tests.operator.harness import eventually
from tests.support.chart import install_crd

from retrainer.api.names import GROUP, LABEL_JOB, LABEL_MANAGED_BY, PLURAL

_CRD = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{PLURAL}.{GROUP}"
_OUT_OF_SERVICE = {
    "key": "node.kubernetes.io/out-of-service",
    "value": "nodeshutdown",
    "effect": "NoExecute",
}


# --- children ---


def _child_path(scene: Scene) -> str:
    return f"/apis/batch/v1/namespaces/{scene.team.name}/jobs/job-train"


def _change_child(scene: Scene, metadata: Body) -> None:
    scene.bed.api.call("PATCH", _child_path(scene), {"metadata": metadata})


def _is_suspended(scene: Scene) -> bool:
    return bool((scene.team.child("job-train") or {})["spec"].get("suspend"))


def _child_deleted(scene: Scene) -> float:
    scene.start_a_job()
    uid = (scene.team.child("job-train") or {})["metadata"]["uid"]
    scene.bed.api.call("DELETE", _child_path(scene), propagationPolicy="Background")

    def is_new() -> bool:
        child = scene.team.child("job-train")
        return child is not None and child["metadata"]["uid"] != uid

    return scene.seconds_until(is_new, "another Job")


def _child_suspended(scene: Scene) -> float:
    scene.start_a_job()
    scene.bed.api.call("PATCH", _child_path(scene), {"spec": {"suspend": True}})
    return scene.seconds_until(lambda: not _is_suspended(scene), "the Job is resumed")


def _child_changed(metadata: Body, scene: Scene) -> float:
    """Its labels or owner are changed; then its pod ends, and the job must too."""
    scene.start_a_job()
    scene.team.running("job")
    _change_child(scene, metadata)
    started = time.monotonic()
    scene.finish()
    return time.monotonic() - started


def _owner_stripped_and_job_deleted(scene: Scene) -> float:
    """Both while the operator is away: Kubernetes leaves the Job, which nobody owns."""
    scene.start_a_job()
    scene.operator.kill()
    _change_child(scene, {"ownerReferences": None})
    scene.team.delete("job")
    eventually(lambda: scene.team.job("job") is None)
    scene.operator.start(wait=False)
    return scene.seconds_until(lambda: not scene.team.children(), "the Job is deleted")


def _labels_stripped_and_suspended(scene: Scene) -> float:
    """Both while the operator is away: no list with our labels shows the Job."""
    scene.start_a_job()
    scene.operator.kill()
    _change_child(scene, _STRIPPED)
    scene.team.edit("job", suspend=True)
    scene.operator.start(wait=False)
    seconds = scene.seconds_until(lambda: _is_suspended(scene), "the Job is suspended")
    scene.team.until("job", phase="Suspended")
    return seconds


_RELABELLED: Body = {"labels": {LABEL_JOB: "another"}}
_STRIPPED: Body = {"labels": {LABEL_JOB: None, LABEL_MANAGED_BY: None}}


# --- pods and nodes ---


def _pod_of(scene: Scene) -> Body:
    (pod,) = scene.team.running("job")
    return pod


def _seconds_to_another(scene: Scene, pod: Body) -> float:
    """Seconds until another pod runs in this one's place; the job then goes on to its end."""

    def runs() -> bool:
        pods = (p for p in scene.team.pods("job") if p["status"].get("phase") == "Running")
        return any(p["metadata"]["uid"] != pod["metadata"]["uid"] for p in pods)

    seconds = scene.seconds_until(runs, "another pod")
    scene.finish()
    return seconds


def _set_trainer(scene: Scene, pod: Body, phase: str, state: Body) -> None:
    container = {"name": "trainer", "image": "x", "imageID": "", "ready": False,
                 "restartCount": 0, "state": state}  # fmt: skip
    name = pod["metadata"]["name"]
    scene.team.set_pod(name, phase=phase, containerStatuses=[container])


def _out_of_memory(scene: Scene) -> float:
    scene.start_a_job()
    pod = _pod_of(scene)
    at = pod["metadata"]["creationTimestamp"]
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": at, "finishedAt": at}
    _set_trainer(scene, pod, "Failed", {"terminated": ended})
    return _seconds_to_another(scene, pod)


def _evicted(scene: Scene) -> float:
    scene.start_a_job(backoffLimit=0)
    pod = _pod_of(scene)
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": scene.team.name}}  # fmt: skip
    path = f"/api/v1/namespaces/{scene.team.name}/pods/{name}"
    scene.bed.api.call("POST", f"{path}/eviction", body)
    _stop(scene, pod)
    return _seconds_to_another(scene, pod)


def _stop(scene: Scene, pod: Body) -> None:
    """End a pod that is being deleted, as its kubelet does: kwok deletes it and leaves its phase."""
    path = f"/api/v1/namespaces/{scene.team.name}/pods/{pod['metadata']['name']}"

    def is_deleted() -> bool:
        current = scene.bed.api.find(path)
        return current is None or "deletionTimestamp" in current["metadata"]

    eventually(is_deleted, within=PATIENCE, what="the pod is to go")
    at = pod["metadata"]["creationTimestamp"]
    ended = {"exitCode": 143, "reason": "Error", "startedAt": at, "finishedAt": at}
    with suppress(ApiException):  # it is gone
        _set_trainer(scene, pod, "Failed", {"terminated": ended})


def _node_out_of_service(scene: Scene) -> float:
    """The node's pods are taken from it, as after its crash."""
    scene.start_a_job(backoffLimit=0)
    pod = _pod_of(scene)
    node = f"/api/v1/nodes/{pod['spec']['nodeName']}"
    scene.bed.api.call("PATCH", node, {"spec": {"taints": [_OUT_OF_SERVICE]}})
    try:
        _stop(scene, pod)
        return _seconds_to_another(scene, pod)
    finally:
        scene.bed.api.call("PATCH", node, {"spec": {"taints": None}})


def _node_deleted(scene: Scene) -> float:
    """Kubernetes takes a minute to believe that a node is gone with its pods."""
    scene.start_a_job(backoffLimit=0)
    pod = _pod_of(scene)
    path = f"/api/v1/nodes/{pod['spec']['nodeName']}"
    metadata = scene.bed.api.call("GET", path)["metadata"]
    scene.bed.api.call("DELETE", path)
    try:
        return _seconds_to_another(scene, pod)
    finally:
        same = {key: metadata[key] for key in ("name", "labels", "annotations")}
        scene.bed.api.call("POST", "/api/v1/nodes", {"metadata": same})


def _image_missing(scene: Scene) -> float:
    """Counted from when the image is there."""
    scene.start_a_job()
    pod = _pod_of(scene)
    running = pod["status"]["containerStatuses"][0]["state"]
    waiting = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    _set_trainer(scene, pod, "Running", {"waiting": waiting, "running": None})
    scene.team.until("job", reason="ImagePullFailed")
    _set_trainer(scene, pod, "Running", running)
    seconds = scene.seconds_until(
        lambda: scene.team.status("job").get("reason") == "Running", "the job runs"
    )
    scene.finish()
    return seconds


def _unschedulable(scene: Scene) -> float:
    """Counted from when a node is there that the pod may run on."""
    disk = secrets.token_hex(3)
    scene.team.apply("job", pod={"nodeSelector": {"disk": disk}}, annotations={"delay": "never"})
    scene.team.until("job", reason="Unschedulable")
    with _labelled_node(scene, disk):
        seconds = scene.seconds_until(
            lambda: scene.team.status("job").get("reason") == "Running", "the job runs"
        )
        scene.finish()
    return seconds


@contextmanager
def _labelled_node(scene: Scene, disk: str) -> Iterator[None]:
    node = f"/api/v1/nodes/{scene.bed.api.items('/api/v1/nodes')[0]['metadata']['name']}"
    scene.bed.api.call("PATCH", node, {"metadata": {"labels": {"disk": disk}}})
    yield
    scene.bed.api.call("PATCH", node, {"metadata": {"labels": {"disk": None}}})


# --- upgrades ---


def _crd_upgraded(scene: Scene) -> float:
    """A field is added to the CRD, and taken away again, while a job runs."""
    scene.start_a_job()
    crd: Any = scene.bed.api.call("GET", _CRD)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["mood"] = {"type": "string"}
    scene.bed.api.call("PATCH", _CRD, {"spec": crd["spec"]})
    try:
        seconds = scene.seconds_to_a_job()
    finally:
        install_crd(scene.bed.cluster)
    scene.finish()
    return seconds


def _operator_upgraded(scene: Scene) -> float:
    """Another replica with another trainer image starts, and the old one ends, while a job runs."""
    scene.start_a_job()
    pod = _pod_of(scene)
    with scene.bed.operator("upgraded", RETRAINER_TRAINER_IMAGE="trainer:next"):
        scene.operator.stop()
        seconds = scene.seconds_to_a_job()
        if _pod_of(scene)["metadata"]["uid"] != pod["metadata"]["uid"]:
            raise AssertionError("the pod of the running job was replaced")
        scene.finish()
    scene.operator.start()
    return seconds


JOBS = [
    Entry("child deleted", _child_deleted, 10),
    Entry("child suspended by somebody", _child_suspended, 10),
    Entry("child relabelled", partial(_child_changed, _RELABELLED), 30, in_ci=False),
    Entry("child's labels stripped", partial(_child_changed, _STRIPPED), 30, in_ci=False),
    Entry("child's owner stripped", partial(_child_changed, {"ownerReferences": None}), 30, in_ci=False),
    Entry("child's owner stripped and its job deleted, operator away",
          _owner_stripped_and_job_deleted, 20),
    Entry("child's labels stripped and its job suspended, operator away",
          _labels_stripped_and_suspended, 20),
    Entry("pod out of memory", _out_of_memory, 40),
    Entry("pod evicted", _evicted, 30),
    Entry("node out of service", _node_out_of_service, 30),
    Entry("node deleted", _node_deleted, 150, in_ci=False),
    Entry("image missing, then there", _image_missing, 10),
    Entry("no node for the pod, then one", _unschedulable, 20),
    Entry("CRD upgraded while a job runs", _crd_upgraded, 20),
    Entry("operator upgraded while a job runs", _operator_upgraded, 15),
]  # fmt: skip
