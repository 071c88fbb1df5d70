"""What is in memory: the newest of each object, whose it is, and nothing that is gone."""

import itertools
from dataclasses import replace

import pytest
from tests.operator.objects import (
    CHILD_UID,
    FINAL,
    NOW,
    UID,
    make_child,
    make_child_body,
    make_job,
    make_job_body,
    make_pod,
    make_pod_body,
)

from retrainer.api.names import LABEL_JOB
from retrainer_operator.planning.objects import read_child, read_job, read_pod
from retrainer_operator.planning.snapshots import ContainerEnd, Refusal
from retrainer_operator.reconciling.memory import LATE, Memory

KEY = ("team", "flowers")


def test_an_answer_that_comes_after_the_deletion_does_not_bring_the_object_back() -> None:
    memory = Memory()
    job, written = make_job(), make_job({"phase": "Pending"})
    deleted = make_job()
    memory.put(job)
    assert memory.remove(UID, deleted.version) == {KEY}
    assert memory.put(written) == set()
    assert memory.observe(KEY).job is None


def test_what_was_read_to_be_gone_never_comes_back_under_its_uid() -> None:
    memory = Memory()
    memory.put(make_child())
    memory.remove(CHILD_UID)
    assert memory.put(make_child()) == set()
    assert memory.get(CHILD_UID) is None


def test_what_is_gone_is_remembered_until_no_answer_can_be_late() -> None:
    now = [0.0]
    memory = Memory(clock=lambda: now[0])
    memory.put(make_job())
    memory.remove(UID)
    memory.forget_gone()
    assert memory.put(make_job()) == set()
    now[0] = LATE + 1
    memory.forget_gone()
    assert memory.put(make_job()) == {KEY}


def test_a_child_that_left_its_watch_by_its_labels_counts_again_once_it_is_read() -> None:
    memory = Memory()
    memory.put(make_job())
    child = make_child()
    memory.put(child)
    relabelled = make_child(labels={})
    memory.remove(CHILD_UID, relabelled.version)
    assert memory.observe(KEY).children == ()
    assert memory.put(relabelled) == {KEY}
    assert memory.observe(KEY).children == (relabelled,)
    assert memory.remove(CHILD_UID, child.version) == set(), (
        "an event that is older than what is here"
    )


def test_a_pod_that_is_relabelled_to_and_fro_is_one_pod_at_its_newest_version() -> None:
    memory = Memory()
    memory.put(make_job())
    memory.put(make_child())
    pods = [
        read_pod(make_pod_body(labels={LABEL_JOB: label}))
        for label in ("flowers", "another", "flowers")
    ]
    for pod in pods:
        memory.put(pod)
        assert memory.observe(KEY).pods == (pod,)
    assert list(memory.pods()) == pods[-1:]


def test_a_relabelled_child_still_belongs_to_the_job_that_controls_it() -> None:
    memory = Memory()
    memory.put(make_job())
    child = make_child(labels={LABEL_JOB: "another"})
    assert memory.put(child) == {KEY}
    assert memory.observe(KEY).children == (child,)


def test_pods_that_come_before_their_child_are_there_once_it_comes() -> None:
    memory = Memory()
    memory.put(make_job())
    pod = make_pod()
    assert memory.put(pod) == set()
    assert memory.put(make_child()) == {KEY}
    assert memory.observe(KEY).pods == (pod,)
    assert memory.job_of_pod(pod) is not None


def test_a_job_of_another_namespace_has_no_say_whatever_owner_is_written() -> None:
    memory = Memory()
    memory.put(make_job())
    body = make_child_body(uid="foreign")
    body["metadata"]["namespace"] = "elsewhere"
    child = read_child(body)
    assert memory.put(child) == set()
    pod_body = make_pod_body(child_uid="foreign")
    pod_body["metadata"]["namespace"] = "elsewhere"
    pod = read_pod(pod_body)
    memory.put(pod)
    assert memory.observe(KEY).children == ()
    assert memory.observe(KEY).pods == ()
    assert memory.job_of_pod(pod) is None


def test_a_job_created_again_replaces_the_one_whose_deletion_was_not_heard_of() -> None:
    memory = Memory()
    first = make_job()
    memory.put(first)
    memory.note_refusal(UID, "flowers-train", Refusal(422, "no", 0.0))
    body = make_job_body()
    body["metadata"]["uid"] = "second"
    second = read_job(body)
    assert memory.put(second) == {KEY}
    assert memory.observe(KEY).job == second
    assert memory.observe(KEY).refusals == {}
    assert memory.put(replace(first, version=first.version)) == set()
    memory.note_refusal(UID, "flowers-train", Refusal(422, "late", 0.0))
    assert list(memory.jobs()) == [second]


@pytest.mark.parametrize("change", ["newer", "older", "same"])
def test_of_two_versions_the_newer_counts(change: str) -> None:
    memory = Memory()
    older, newer = make_child(), make_child(suspend=True)
    memory.put(make_job())
    memory.put(older if change == "newer" else newer)
    assert memory.put(older if change == "older" else newer) == (
        {KEY} if change == "newer" else set()
    )
    assert memory.observe(KEY).children == (newer,)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_of_the_pods_of_a_finished_job_no_message_is_kept(order: tuple[int, ...]) -> None:
    """Each took 13 KiB, most of it the text of the report and what was read of it."""
    memory = Memory()
    ended = make_pod(ended=(0, "Completed", FINAL))
    for number in order:
        memory.put((make_job({"phase": "Training"}), make_child(), ended)[number])
    (pod,) = memory.observe(KEY).pods
    assert pod.ended is not None
    assert pod.ended.report is not None
    assert memory.put(make_job({"phase": "Succeeded"})) == {KEY}
    (pod,) = memory.observe(KEY).pods
    assert pod == ended.without_message()
    assert pod.ended == ContainerEnd(0, "Completed", "", NOW)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_nor_when_it_had_finished_before_this_operator_started(order: tuple[int, ...]) -> None:
    memory = Memory()
    pod = make_pod(ended=(0, "Completed", FINAL))
    for number in order:
        memory.put((make_job({"phase": "Failed"}), make_child(), pod)[number])
    assert memory.observe(KEY).pods == (pod.without_message(),)
