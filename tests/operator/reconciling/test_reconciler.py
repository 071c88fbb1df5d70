"""Answers of the API server to what a pass writes and reads."""

import asyncio
import copy
from typing import Any

import pytest
from tests.operator.fake_cluster import JOB, JOBS, KEY, PODS, FakeCluster, Run
from tests.operator.objects import make_settings

from retrainer_operator.api_server.client import ApiError
from retrainer_operator.planning.objects import read_child, read_job
from retrainer_operator.reconciling.queue import RetryLater

Body = dict[str, Any]


class _Refusing(FakeCluster):
    """One that has something against some requests."""

    def __init__(self) -> None:
        super().__init__()
        self.against: dict[str, ApiError] = {}

    async def get(self, path: str, **params: str) -> Body:
        self._object(path)
        return await super().get(path, **params)

    async def create(self, path: str, body: Body) -> Body:
        self._object(path)
        return await super().create(path, body)

    def _object(self, path: str) -> None:
        error = self.against.get(path.rpartition("/")[2])
        if error is not None:
            raise error


def _pass(run: Run) -> float | None:
    return asyncio.run(run.make_pass())


def test_a_refusal_is_not_the_next_jobs_of_that_name() -> None:
    cluster = _Refusing()
    cluster.against["jobs"] = ApiError(422, "Invalid", "priorityClassName: not found", None)
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    assert cluster.phase == "Failed"
    # Deleted and created again, mended, before any pass over it.
    cluster.against.clear()
    cluster.remove(JOB)
    run.sync()
    cluster.apply_job()
    cluster.objects[JOB]["metadata"]["uid"] = "second"
    run.sync()
    _pass(run)
    _pass(run)
    assert cluster.phase == "Pending"
    assert len(cluster.children()) == 1


def test_a_job_that_is_gone_when_its_end_is_written_is_left_at_once() -> None:
    """Its deletion may have been missed: without this it is tried again without a pause."""
    cluster = FakeCluster()
    cluster.apply_job(shards="many")
    run = Run(cluster, make_settings())
    cluster.remove(JOB)
    _pass(run)
    assert run.memory.observe(KEY).job is None
    assert _pass(run) is None


def test_without_the_right_to_read_events_a_job_without_pods_is_told_of_all_the_same() -> None:
    cluster = _Refusing()
    cluster.against["events"] = ApiError(403, "Forbidden", "cannot list events", None)
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    cluster.now += 20
    run.sync()
    _pass(run)
    assert cluster.job is not None
    assert cluster.job["status"]["message"] == "Waiting for the first pod of Job flowers-train."


class _Conflicting(FakeCluster):
    """One that refuses the next DELETE as in conflict with another write."""

    conflicts = 1

    async def delete(self, path: str, uid: str, version: int | None = None) -> Body:
        if self.conflicts:
            self.conflicts -= 1
            raise ApiError(409, "Conflict", "the object has been modified", None)
        return await super().delete(path, uid, version)


def test_a_conflict_at_a_deletion_is_not_taken_as_done() -> None:
    cluster = _Conflicting()
    cluster.apply_job(labels={"kueue.x-k8s.io/queue-name": "q"})
    run = Run(cluster, make_settings())
    _pass(run)
    cluster.edit_job({"suspend": True})
    run.sync()
    with pytest.raises(RetryLater):
        _pass(run)
    assert len(cluster.children()) == 1
    _pass(run)
    assert cluster.children() == []
    assert cluster.phase == "Suspended"


def test_a_conflict_at_the_deletion_of_a_job_whose_time_is_over_is_tried_again() -> None:
    cluster = _Conflicting()
    cluster.apply_job(shards="many", ttl_seconds_after_finished=60)
    run = Run(cluster, make_settings())
    _pass(run)
    assert cluster.phase == "Failed"
    cluster.now += 60
    with pytest.raises(RetryLater):
        _pass(run)
    _pass(run)
    assert cluster.job is None


def test_a_child_replaced_unseen_by_one_of_its_name_is_not_fought_over() -> None:
    cluster = FakeCluster()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    (child,) = cluster.children()
    cluster.remove(f"{JOBS}/flowers-train")
    child["metadata"] |= {"uid": "another", "ownerReferences": [], "labels": {}}
    child["spec"]["template"]["metadata"]["labels"] = {}
    cluster.objects[f"{JOBS}/flowers-train"] = child
    cluster.edit_job({"suspend": True})
    run.memory.put(read_job(cluster.objects[JOB]))
    _pass(run)
    assert cluster.phase == "Suspended"
    assert cluster.children() == [child]


def _strip(cluster: FakeCluster, *fields: str) -> None:
    body = copy.deepcopy(cluster.objects[f"{JOBS}/flowers-train"])
    for field in fields:
        body["metadata"].pop(field)
    cluster.put(f"{JOBS}/flowers-train", body)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_child_that_lost_its_owner_goes_when_its_job_has_gone(restarted: bool) -> None:
    """Kubernetes left it running for ever, and the name was taken."""
    cluster = FakeCluster()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    _strip(cluster, "ownerReferences")
    cluster.remove(JOB)
    if restarted:
        run = Run(cluster, make_settings())
    run.sync()
    _pass(run)
    assert cluster.children() == []


def test_a_child_that_lost_its_owner_makes_way_for_the_next_job_of_its_name() -> None:
    cluster = FakeCluster()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    _strip(cluster, "ownerReferences", "labels")
    cluster.remove(JOB)
    run = Run(cluster, make_settings())
    cluster.apply_job()
    run.sync()
    for _ in range(3):
        _pass(run)
    assert cluster.job is not None
    (child,) = cluster.children()
    assert child["metadata"]["ownerReferences"][0]["uid"] == cluster.job["metadata"]["uid"]


def test_a_child_is_not_taken_for_that_of_an_earlier_job_by_a_memory_that_is_behind() -> None:
    cluster = FakeCluster()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    cluster.remove(JOB)
    cluster.apply_job()
    other = Run(cluster, make_settings())
    _pass(other)
    _strip(cluster, "ownerReferences")
    (before,) = cluster.children()
    run.memory.put(read_child(before))
    _pass(run)
    (after,) = cluster.children()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"]["ownerReferences"]


def test_a_child_without_labels_is_known_to_an_operator_that_starts_later() -> None:
    """It was left running while its job was suspended: no list showed it."""
    cluster = FakeCluster()
    cluster.apply_job()
    _pass(Run(cluster, make_settings()))
    _strip(cluster, "labels")
    cluster.edit_job({"suspend": True})
    _pass(Run(cluster, make_settings()))
    (child,) = cluster.children()
    assert cluster.phase == "Suspended"
    assert child["spec"]["suspend"]
    assert child["metadata"]["labels"]


def test_a_job_that_only_its_pods_show_is_deleted_when_its_retrainjob_has_gone() -> None:
    cluster = FakeCluster()
    cluster.apply_job()
    _pass(Run(cluster, make_settings()))
    cluster.control_jobs()
    _strip(cluster, "ownerReferences", "labels")
    cluster.remove(JOB)
    run = Run(cluster, make_settings())
    run.resync()
    _pass(run)
    assert [path for path in cluster.objects if path.startswith((JOBS, PODS))] == []


class _DeletedMeanwhile(FakeCluster):
    """One whose RetrainJob is deleted after a status was written and before its answer arrives."""

    run: Run | None = None

    async def patch(self, path: str, body: Body) -> Body:
        answer = await super().patch(path, body)
        if path.endswith("/status") and self.run is not None:
            run, self.run = self.run, None
            self.remove(JOB)
            run.sync()
        return answer


def test_a_job_that_is_deleted_while_its_status_is_written_gets_no_further_child() -> None:
    cluster = _DeletedMeanwhile()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    cluster.run = run
    _pass(run)
    for _ in range(8):
        _pass(run)
    assert cluster.children() == []
    assert [w for w in cluster.writes if w[0] == "create"] == [("create", f"{JOBS}/flowers-train")]


@pytest.mark.parametrize("suspend", [False, True])
@pytest.mark.parametrize("stripped", ["labels", "ownerReferences"])
def test_a_child_without_its_labels_or_owner_is_mended_and_does_what_its_job_says(
    stripped: str, suspend: bool
) -> None:
    cluster = FakeCluster()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    path = f"{JOBS}/flowers-train"
    whole = cluster.objects[path]["metadata"]
    strangers = {"kind": "Team", "name": "a", "uid": "team-a"}
    kept = {"labels": {"team": "a"}, "ownerReferences": [strangers]}[stripped]
    body = copy.deepcopy(cluster.objects[path])
    body["metadata"][stripped] = kept
    cluster.put(path, body)
    cluster.edit_job({"suspend": suspend})
    run.sync()
    _pass(run)
    mended = cluster.objects[path]
    assert mended["metadata"]["uid"] == whole["uid"]
    for label, value in whole["labels"].items():
        assert mended["metadata"]["labels"][label] == value
    assert whole["ownerReferences"][0] in mended["metadata"]["ownerReferences"]
    assert kept == {"team": "a"} or strangers in mended["metadata"]["ownerReferences"]
    assert mended["spec"]["suspend"] is suspend
    run.sync()
    writes = len(cluster.writes)
    _pass(run)
    assert cluster.writes[writes:] == []


def test_a_child_that_somebody_else_adopted_is_left_to_them() -> None:
    cluster = FakeCluster()
    cluster.apply_job()
    run = Run(cluster, make_settings())
    _pass(run)
    path = f"{JOBS}/flowers-train"
    body = copy.deepcopy(cluster.objects[path])
    body["metadata"]["ownerReferences"] = [
        {"kind": "CronJob", "name": "nightly", "uid": "nightly", "controller": True}
    ]
    cluster.put(path, body)
    run.sync()
    _pass(run)
    assert (
        cluster.objects[path]["metadata"]["ownerReferences"] == body["metadata"]["ownerReferences"]
    )
    assert cluster.job is not None
    assert cluster.job["status"]["reason"] == "NameTaken"


def test_a_status_that_the_api_server_refuses_is_counted() -> None:
    class Strict(FakeCluster):
        async def patch(self, path: str, body: Body) -> Body:
            raise ApiError(422, "Invalid", "status.message: Too long", None)

    cluster = Strict()
    cluster.apply_job(shards="many")
    run = Run(cluster, make_settings())
    for _ in range(2):
        with pytest.raises(ApiError, match="Too long"):
            _pass(run)
    assert run.refused == 2
