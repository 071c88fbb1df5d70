"""Ordered checks, each named after the state that it recognises: it gives a verdict or passes on.

The first verdict counts, so the order of CHECKS is the operator's policy. The pods come last: they
are asked only when there is nothing left to do but to watch them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from retrainer.api import Phase, RetrainJobSpec, reasons
from retrainer.api.interval import percent
from retrainer.api.layout import RESULT, join
from retrainer.api.names import TASK_BOTTLENECKS, TASK_TRAIN
from retrainer_operator.planning import children, pods
from retrainer_operator.planning.actions import (
    RETRY_NAME,
    RETRY_REFUSED,
    CreateChild,
    DeleteChild,
    Look,
    PatchChild,
    Verdict,
)
from retrainer_operator.planning.case import Case
from retrainer_operator.planning.snapshots import is_of_earlier_job
from retrainer_operator.planning.times import is_recent
from retrainer_operator.settings import Settings

Check = Callable[[Case], Verdict | None]


def child_failed(case: Case) -> Verdict | None:
    """The due child has given up."""
    if case.child is None or case.child.failed is None:
        return None
    return replace(pods.verdict_of_failure(case, case.child), ended_at=case.child.ended)


def child_complete(case: Case) -> Verdict | None:
    """The train child is done: so is the job, with or without its report."""
    train = case.own(TASK_TRAIN)
    if train is None or not train.complete:
        return None
    report = pods.final_report(case)
    if report is None:
        # The watch of Jobs may be ahead of that of pods: then the pods are read once. A pod that has
        # succeeded is not read again, since its message no longer changes.
        ended = any(pod.phase == "Succeeded" for pod in case.pods)
        unread = not ended and train.uid not in case.observed.listed
        look = Look("pods", train.name, train.uid) if unread else None
        result = join(case.job.run_url, RESULT)
        lost = reasons.REPORT_LOST
        message = lost(result=result)
        return Verdict(Phase.SUCCEEDED, lost, message, look=look, ended_at=train.ended)
    accuracy, images = report.metrics.test_accuracy, report.metrics.test_images
    if accuracy is None:
        untested = reasons.SUCCEEDED_UNTESTED
        message = untested(run=case.job.run_url)
        return Verdict(Phase.SUCCEEDED, untested, message, report=report, ended_at=train.ended)
    message = reasons.SUCCEEDED(
        accuracy=percent(accuracy), images=images or 0, run=case.job.run_url
    )
    return Verdict(Phase.SUCCEEDED, reasons.SUCCEEDED, message, report=report, ended_at=train.ended)


def out_of_time(case: Case) -> Verdict | None:
    """The deadline passed while no Job that Kubernetes would end for it was running."""
    idle = case.child is None or case.child.suspended
    if case.ends_at is None or case.now < case.ends_at or not idle:
        return None
    limit = case.job.spec.active_deadline_seconds
    return case.fails(reasons.DEADLINE_EXCEEDED, seconds=limit)


def suspended(case: Case) -> Verdict | None:
    """`spec.suspend` is true: the due child is suspended, or deleted if Kueue decides what is."""
    if not case.job.spec.suspend:
        return None
    child = case.child
    writes: tuple[PatchChild | DeleteChild, ...] = ()
    if child is not None and not child.deleting:
        if case.queue is not None:
            writes = (DeleteChild(child),)
        elif not child.suspended:
            writes = (PatchChild(child, {"suspend": True}),)
    return case.waits(reasons.SUSPENDED, writes=writes, phase=Phase.SUSPENDED)


def name_taken(case: Case) -> Verdict | None:
    """The due child's name belongs to a Job of somebody else, or to one that is on its way out."""
    holder, job = case.holder(case.task), case.observed.job
    if holder is None or job is None or (holder is case.child and not holder.deleting):
        return None
    again_at = case.now + RETRY_NAME
    if holder is case.child or holder.deleting or is_of_earlier_job(holder, job):
        return case.waits(reasons.WAITING_FOR_CLEANUP, child=holder.name, again_at=again_at)
    return case.waits(reasons.NAME_TAKEN, child=holder.name, owner=holder.owner, again_at=again_at)


def not_allowed(case: Case) -> Verdict | None:
    """The spec asks for pods that whoever installed the operator did not allow."""
    if case.child is not None:
        return None
    detail = next(_not_allowed(case.job.spec, case.settings), None)
    return None if detail is None else case.fails(reasons.NOT_ALLOWED, detail=detail)


def _not_allowed(spec: RetrainJobSpec, settings: Settings) -> Iterator[str]:
    """Give a sentence for each thing of the spec that is not allowed."""
    asked = spec.pod
    account = asked.service_account_name
    if account and account not in settings.service_accounts:
        yield (
            f"spec.pod.serviceAccountName {account} is not one of the operator's "
            f"allowedServiceAccounts ({_listed(settings.service_accounts)})."
        )
    priority = asked.priority_class_name
    if priority and priority not in settings.priority_classes:
        yield (
            f"spec.pod.priorityClassName {priority} is not one of the operator's "
            f"allowedPriorityClasses ({_listed(settings.priority_classes)})."
        )
    keys = settings.toleration_keys
    for key in (toleration.key for toleration in asked.tolerations):
        if "*" not in keys and key not in keys:
            taint = f"the taint {key}" if key else "every taint"
            yield (
                f"spec.pod.tolerations tolerates {taint}, which the operator's "
                f"allowedTolerationKeys do not allow ({_listed(keys)})."
            )
    if spec.shards > settings.max_shards:
        yield f"spec.shards is {spec.shards}, and the operator's maxShards is {settings.max_shards}."
    for field, given in (("labels", asked.labels), ("annotations", asked.annotations)):
        for key in sorted(given):
            if not key.startswith(settings.allowed_pod_metadata_prefixes or ("\0",)):
                yield (
                    f"spec.pod.{field} has the key {key}, which starts with none of the operator's "
                    f"allowedPodMetadataPrefixes ({_listed(settings.allowed_pod_metadata_prefixes)})."
                )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def child_refused(case: Case) -> Verdict | None:
    """The API server did not take the due child."""
    refusal = case.observed.refusals.get(case.child_name)
    if case.child is not None or refusal is None:
        return None
    if refusal.code in (400, 422):
        return case.fails(reasons.CHILD_REFUSED, child=case.child_name, detail=refusal.message)
    if not is_recent(refusal.at, RETRY_REFUSED, case.now):
        return None
    again_at = refusal.at + RETRY_REFUSED
    if "exceeded quota" in refusal.message:
        return case.waits(
            reasons.QUOTA_EXCEEDED,
            child=case.child_name,
            detail=refusal.message,
            again_at=again_at,
        )
    return case.waits(
        reasons.NOT_PERMITTED,
        verb="create",
        resource="jobs.batch",
        namespace=case.job.namespace,
        detail=refusal.message,
        again_at=again_at,
    )


def child_missing(case: Case) -> Verdict | None:
    """The due child is not there: create it, with what is left of the time."""
    if case.child is not None:
        return None
    build = children.bottlenecks if case.task == TASK_BOTTLENECKS else children.train
    left = None if case.ends_at is None else max(1, int(case.ends_at - case.now))
    if left is None:
        left = case.job.spec.active_deadline_seconds
    body = build(case.job, case.settings, deadline=left)
    if case.queue is not None:
        return case.waits(
            reasons.QUEUED,
            child=case.child_name,
            queue=case.queue,
            writes=(CreateChild(body),),
            phase=Phase.PENDING,
        )
    return case.waits(reasons.CREATED, child=case.child_name, writes=(CreateChild(body),))


def child_suspended(case: Case) -> Verdict | None:
    """The due child is suspended: by Kueue, which will resume it, or by an earlier spec.suspend."""
    child = case.child
    if child is None or not child.suspended:
        return None
    if case.queue is not None:
        return case.waits(
            reasons.QUEUED,
            child=child.name,
            queue=case.queue,
            phase=Phase.PENDING,
            again_at=case.ends_at,
        )
    return case.waits(
        reasons.CREATED, child=child.name, writes=(PatchChild(child, {"suspend": False}),)
    )


def child_running(case: Case) -> Verdict | None:
    """The due child is at work."""
    return None if case.child is None else pods.verdict_of_pods(case, case.child)


CHECKS: tuple[Check, ...] = (
    # What has ended has ended, even if spec.suspend or the deadline came in the same moment.
    child_failed,
    child_complete,
    out_of_time,
    suspended,
    # From here on the job is meant to run.
    name_taken,
    not_allowed,
    child_refused,
    child_missing,
    child_suspended,
    child_running,
)


def verdict(case: Case) -> Verdict:
    """Decide by the first check that applies; one always does."""
    return next(v for v in (check(case) for check in CHECKS) if v is not None)
