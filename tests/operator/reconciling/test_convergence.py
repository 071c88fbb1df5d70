"""Whatever happens, in whatever order: the same end, and nothing done twice."""

import asyncio
import copy
import os
from typing import Any
from unittest import TestCase

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.operator.fake_cluster import JOB, JOBS, PODS, FakeCluster, Run, ended
from tests.operator.objects import FINAL, child_labels, make_settings

from retrainer.api.names import LABEL_JOB
from retrainer.api.reasons import ConditionType
from retrainer.errors import ClusterError
from retrainer_operator.planning.objects import read_child
from retrainer_operator.reconciling.queue import RetryLater

Body = dict[str, Any]


def _pass(run: Run) -> None:
    try:
        asyncio.run(run.make_pass())
    except (RetryLater, ClusterError):
        run.sync()  # as the queue does: again, a little later


def _life(cluster: FakeCluster, run: Run) -> None:
    """To the end, with pods that do well."""
    for _ in range(60):
        run.sync()
        _pass(run)
        if cluster.phase in ("Succeeded", "Failed"):
            return
        cluster.now += 20
        cluster.control_jobs()
        for path in cluster.pod_paths("Pending"):
            cluster.run_pod(path)
        run.sync()
        _pass(run)
        for path in cluster.pod_paths("Running"):
            cluster.end_pod(path, 0, "Completed", FINAL)
        for body in cluster.children():
            if not ended(body):
                cluster.finish(body, "Complete", "CompletionsReached")
    raise AssertionError(f"it does not end: {cluster.job}")


@pytest.mark.parametrize(("shards", "most"), [(1, 8), (3, 12)])
def test_a_whole_life_takes_few_writes(shards: int, most: int) -> None:
    cluster = FakeCluster()
    cluster.apply_job(shards=shards)
    run = Run(cluster, make_settings())
    _life(cluster, run)
    assert cluster.phase == "Succeeded"
    assert len(cluster.writes) <= most, cluster.writes
    assert run.finished == [("Succeeded", "Succeeded")]


POD_ENDS = [
    (0, "Completed", FINAL),
    (0, "Completed", "no report"),
    (1, "Error", "boom"),
    (64, "Error", ""),
    (137, "OOMKilled", ""),
]


class Lives(RuleBasedStateMachine):
    """One job among users who change their minds, pods that die, and an operator that is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = FakeCluster()
        self.terminal = ("", "")
        self.listed = self.cluster.snapshot()
        self.settings = make_settings()
        self.run = Run(self.cluster, self.settings)

    @initialize(
        shards=st.sampled_from([1, 3]),
        queue=st.booleans(),
        deadline=st.sampled_from([None, 50, 5000]),
        backoff=st.sampled_from([0, 2]),
        ttl=st.sampled_from([None, None, 60]),
    )
    def apply(
        self, shards: int, queue: bool, deadline: int | None, backoff: int, ttl: int | None
    ) -> None:
        labels = {"kueue.x-k8s.io/queue-name": "q"} if queue else None
        self.job = {
            "labels": labels,
            "shards": shards,
            "backoff_limit": backoff,
            "active_deadline_seconds": deadline,
            "ttl_seconds_after_finished": ttl,
        }
        self.cluster.apply_job(**self.job)
        self.run.sync()

    @rule()
    def operator_acts(self) -> None:
        _pass(self.run)

    @rule()
    def watches_catch_up(self) -> None:
        self.run.sync()

    @rule()
    def operator_is_killed_and_started_again(self) -> None:
        self.run = Run(self.cluster, self.settings)

    @rule()
    def a_list_is_taken_that_will_be_served_late(self) -> None:
        self.listed = self.cluster.snapshot()

    @rule()
    def a_late_list_is_taken_in(self) -> None:
        self.run.take(self.listed)

    @rule()
    def operator_starts_again_with_a_late_list(self) -> None:
        self.run = Run(self.cluster, self.settings, self.listed)

    @rule(data=st.data())
    def an_event_is_lost(self, data: st.DataObject) -> None:
        uids = {s.uid for s in self.run.memory.snapshots()}
        uids |= {body["metadata"]["uid"] for body in self.cluster.objects.values()}
        if uids:
            self.run.lose(data.draw(st.sampled_from(sorted(uids))))

    @rule()
    def what_is_missing_is_read(self) -> None:
        self.run.resync()

    @rule()
    def garbage_is_collected(self) -> None:
        self.cluster.collect_garbage()

    @rule(recreated=st.booleans())
    def user_deletes_the_job(self, recreated: bool) -> None:
        if JOB in self.cluster.objects:
            self.cluster.remove(JOB)
        if recreated:
            self.cluster.collect_garbage()
            self.cluster.apply_job(**self.job)

    @rule(how=st.sampled_from(["refused", "unanswered"]))
    def the_api_server_fails(self, how: str) -> None:
        self.cluster.fault = how

    @rule(seconds=st.sampled_from([1, 7, 30, 120]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now += seconds

    @rule()
    def job_controller_acts(self) -> None:
        self.cluster.control_jobs()

    @rule(suspend=st.booleans())
    def user_suspends_or_resumes(self, suspend: bool) -> None:
        self.cluster.edit_job({"suspend": suspend})

    @rule(deadline=st.sampled_from([None, 30, 900]))
    def user_edits_the_deadline(self, deadline: int | None) -> None:
        self.cluster.edit_job({"activeDeadlineSeconds": deadline})

    @precondition(lambda self: self.cluster.children())
    @rule(data=st.data())
    def somebody_deletes_a_child(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.cluster.children()))
        self.cluster.remove(f"{JOBS}/{body['metadata']['name']}")

    @precondition(lambda self: self.cluster.children())
    @rule(data=st.data(), how=st.sampled_from(["owner", "labels", *sorted(child_labels())]))
    def somebody_strips_a_child(self, data: st.DataObject, how: str) -> None:
        body = copy.deepcopy(data.draw(st.sampled_from(self.cluster.children())))
        if how == "owner":
            body["metadata"].pop("ownerReferences", None)
        elif how == "labels":
            body["metadata"]["labels"] = {}
        else:
            body["metadata"]["labels"][how] = "another"
        self.cluster.put(f"{JOBS}/{body['metadata']['name']}", body)

    @precondition(lambda self: self.cluster.pods())
    @rule(data=st.data(), how=st.sampled_from([{}, {LABEL_JOB: "another"}, "deleted", "evicted"]))
    def something_happens_to_a_pod(self, data: st.DataObject, how: dict[str, str] | str) -> None:
        body = copy.deepcopy(data.draw(st.sampled_from(self.cluster.pods())))
        path = f"{PODS}/{body['metadata']['name']}"
        if how == "deleted":
            self.cluster.remove(path)
        elif how == "evicted":
            disrupted = {"type": "DisruptionTarget", "status": "True", "message": "drained"}
            self.cluster.set(path, phase="Failed", conditions=[disrupted])
        else:
            body["metadata"]["labels"] = how
            self.cluster.put(path, body)

    @precondition(lambda self: self.cluster.children())
    @rule(suspend=st.booleans())
    def kueue_admits_or_evicts(self, suspend: bool) -> None:
        for body in self.cluster.children():
            if "kueue.x-k8s.io/queue-name" in body["metadata"]["labels"] and not ended(body):
                path = f"{JOBS}/{body['metadata']['name']}"
                self.cluster.objects[path]["spec"]["suspend"] = suspend
                self.cluster.set(path)

    @precondition(lambda self: self.cluster.pod_paths("Pending"))
    @rule()
    def a_pod_runs(self) -> None:
        self.cluster.run_pod(self.cluster.pod_paths("Pending")[0])

    @precondition(lambda self: self.cluster.pod_paths("Running"))
    @rule(end=st.sampled_from(POD_ENDS))
    def a_pod_ends(self, end: tuple[int, str, str]) -> None:
        self.cluster.end_pod(self.cluster.pod_paths("Running")[0], *end)

    @precondition(lambda self: any(not ended(b) for b in self.cluster.children()))
    @rule(data=st.data(), how=st.sampled_from(
        [("Complete", "CompletionsReached"), ("Failed", "BackoffLimitExceeded"),
         ("Failed", "PodFailurePolicy"), ("Failed", "DeadlineExceeded")]))  # fmt: skip
    def a_child_ends(self, data: st.DataObject, how: tuple[str, str]) -> None:
        unfinished = [b for b in self.cluster.children() if not ended(b)]
        self.cluster.finish(data.draw(st.sampled_from(unfinished)), *how)

    @invariant()
    def terminal_stays_terminal(self) -> None:
        if self.cluster.job is None:
            return
        uid = self.cluster.job["metadata"]["uid"]
        if self.terminal[0] == uid:
            assert self.cluster.phase == self.terminal[1]
        if self.cluster.phase in ("Succeeded", "Failed"):
            self.terminal = uid, self.cluster.phase

    @invariant()
    def one_child_at_a_time_is_unfinished(self) -> None:
        assert len(self._unfinished()) <= 1

    @invariant()
    def the_status_is_one_the_crd_takes(self) -> None:
        if self.cluster.job is not None:
            for condition in self.cluster.job["status"].get("conditions", ()):
                assert condition["type"] in tuple(ConditionType)
                assert condition["lastTransitionTime"]

    def _unfinished(self) -> list[Body]:
        """The children of the job that is there that have not ended."""
        job = self.cluster.job
        uid = job["metadata"]["uid"] if job else ""
        return [
            body
            for body in self.cluster.children()
            if read_child(body).owner_uid == uid and not ended(body)
        ]

    def teardown(self) -> None:
        """Left alone, the operator comes to rest, and at rest it writes nothing."""
        self.cluster.fault = ""
        self.run.sync()
        for _ in range(16):
            self.cluster.collect_garbage()
            self.run.resync()
            before = len(self.cluster.writes)
            _pass(self.run)
            if len(self.cluster.writes) == before:
                break
        else:
            raise AssertionError(f"it does not come to rest: {self.cluster.writes[-8:]}")
        self.run.sync()
        before = len(self.cluster.writes)
        _pass(self.run)
        assert self.cluster.writes[before:] == []
        if JOB in self.cluster.objects:
            self.what_is_asked_for_is_there()
        else:
            assert [body for body in self.cluster.children() if self._is_shown(body)] == []

    def _is_shown(self, body: Body) -> bool:
        """Whether a list shows a child, or one of its pods: what nothing shows, nobody can find.

        It does nothing either, and goes when its name is needed.
        """
        pods = [
            pod
            for pod in self.cluster.pods()
            if pod["metadata"]["ownerReferences"][0]["uid"] == body["metadata"]["uid"]
        ]
        return any(LABEL_JOB in (each["metadata"].get("labels") or {}) for each in [body, *pods])

    def what_is_asked_for_is_there(self) -> None:
        job = self.cluster.objects[JOB]
        unfinished = self._unfinished()
        if self.cluster.phase in ("Succeeded", "Failed"):
            assert unfinished == []
        elif job["spec"].get("suspend"):
            assert self.cluster.phase == "Suspended"
            assert all(body["spec"]["suspend"] for body in unfinished)
        else:
            assert len(unfinished) == 1, job["status"]


def _tried(examples: int) -> type[TestCase]:
    """So many lives of 40 steps each."""
    case: type[TestCase] = type(f"{examples}Lives", (Lives.TestCase,), {})
    case.settings = settings(  # type: ignore[attr-defined]
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    return case


class TestLives(_tried(int(os.environ.get("RETRAINER_LIVES", "100")))):  # type: ignore[misc]
    """As many as fit into the fast tests; RETRAINER_LIVES=1000 finds what seldom happens."""
