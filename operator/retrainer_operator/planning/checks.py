"""Ordered checks: each looks at the whole case and either gives a verdict or passes it on. Pure.

The first verdict counts, so the order of CHECKS is the operator's policy. What a child's pods say
comes last: it is reached only when there is nothing left to do but to watch.
"""

from collections.abc import Callable

from retrainer.api import Phase, reasons
from retrainer.api.layout import RESULT, join
from retrainer.api.names import TASK_BOTTLENECKS, TASK_TRAIN
from retrainer_operator.planning import children, pods
from retrainer_operator.planning.case import Case, Change, Create, Look, Remove, Verdict
from retrainer_operator.planning.snapshots import is_of_earlier, lately

RETRY_NAME = 10.0
"""Seconds between two looks at a name that somebody else's Job holds."""
RETRY_REFUSED = 15.0
"""Seconds until a child that a quota or RBAC refused is tried again."""

Check = Callable[[Case], Verdict | None]


def child_failed(case: Case) -> Verdict | None:
    """The due child has given up."""
    if case.child is None or case.child.failed is None:
        return None
    return pods.failed(case, case.child)


def child_complete(case: Case) -> Verdict | None:
    """The train child is done: so is the job, with or without its report."""
    train = case.own(TASK_TRAIN)
    if train is None or not train.complete:
        return None
    report = pods.final_report(case)
    if report is None:
        # The Job's watch may be ahead of the pods'; a pod that has ended says no more than it did.
        seen = any(pod.phase == "Succeeded" for pod in case.pods)
        unread = not seen and train.uid not in case.observed.listed
        look = Look("pods", train.name, train.uid) if unread else None
        result = join(case.job.run_url, RESULT)
        lost = reasons.REPORT_LOST
        return Verdict(Phase.SUCCEEDED, lost, lost(result=result), look=look)
    accuracy, images = report.metrics.test_accuracy, report.metrics.test_images
    if accuracy is None:
        untested = reasons.SUCCEEDED_UNTESTED
        return Verdict(Phase.SUCCEEDED, untested, untested(run=case.job.run_url))
    message = reasons.SUCCEEDED(
        accuracy=f"{accuracy:.4f}", images=images or 0, run=case.job.run_url
    )
    return Verdict(Phase.SUCCEEDED, reasons.SUCCEEDED, message)


def out_of_time(case: Case) -> Verdict | None:
    """The deadline passed while no Job that Kubernetes would end for it was running."""
    held_back = case.child is None or case.child.suspended
    if case.ends_at is None or case.now < case.ends_at or not held_back:
        return None
    limit = case.job.spec.active_deadline_seconds
    return case.fails(reasons.DEADLINE_EXCEEDED, seconds=limit)


def suspended(case: Case) -> Verdict | None:
    """`spec.suspend`: the due child is held; with a queue it is deleted, since Kueue owns the hold."""
    if not case.job.spec.suspend:
        return None
    child = case.child
    writes: tuple[Change | Remove, ...] = ()
    if child is not None and not child.deleting:
        if case.queue is not None:
            writes = (Remove(child),)
        elif not child.suspended:
            writes = (Change(child, {"suspend": True}),)
    return case.waits(reasons.SUSPENDED, writes=writes, phase=Phase.SUSPENDED)


def name_held(case: Case) -> Verdict | None:
    """The due child's name belongs to a Job of somebody else, or to one that is on its way out."""
    held, job = case.held(case.task), case.observed.job
    if held is None or job is None or (held is case.child and not held.deleting):
        return None
    again_at = case.now + RETRY_NAME
    if held is case.child or held.deleting or is_of_earlier(held, job):
        return case.waits(reasons.WAITING_FOR_CLEANUP, child=held.name, again_at=again_at)
    return case.waits(reasons.NAME_TAKEN, child=held.name, owner=held.owner, again_at=again_at)


def not_allowed(case: Case) -> Verdict | None:
    """What the spec asks of its pods, and whoever installed the operator did not allow."""
    if case.child is not None:
        return None
    asked, settings = case.job.spec.pod, case.settings
    account = asked.service_account_name
    if account and account not in settings.service_accounts:
        allowed = ", ".join(sorted(settings.service_accounts)) or "none"
        detail = (
            f"spec.pod.serviceAccountName {account} is not one of the operator's "
            f"allowedServiceAccounts ({allowed})."
        )
        return case.fails(reasons.NOT_ALLOWED, detail=detail)
    for field, given in (("labels", asked.labels), ("annotations", asked.annotations)):
        for key in sorted(given):
            if not key.startswith(settings.allowed_pod_metadata_prefixes or ("\0",)):
                allowed = ", ".join(settings.allowed_pod_metadata_prefixes) or "none"
                detail = (
                    f"spec.pod.{field} has the key {key}, which starts with none of the operator's "
                    f"allowedPodMetadataPrefixes ({allowed})."
                )
                return case.fails(reasons.NOT_ALLOWED, detail=detail)
    return None


def refused(case: Case) -> Verdict | None:
    """The API server did not take the due child."""
    refusal = case.observed.refusals.get(case.child_name)
    if case.child is not None or refusal is None:
        return None
    if refusal.code in (400, 422):
        return case.fails(reasons.CHILD_REFUSED, child=case.child_name, detail=refusal.message)
    if not lately(refusal.at, RETRY_REFUSED, case.now):
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


def missing(case: Case) -> Verdict | None:
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
            writes=(Create(body),),
            phase=Phase.PENDING,
        )
    return case.waits(reasons.CREATED, child=case.child_name, writes=(Create(body),))


def held_back(case: Case) -> Verdict | None:
    """The due child is suspended: by Kueue, which will let it go, or by an earlier spec.suspend."""
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
        reasons.CREATED, child=child.name, writes=(Change(child, {"suspend": False}),)
    )


def watched(case: Case) -> Verdict | None:
    """The due child is at work."""
    return None if case.child is None else pods.words(case, case.child)


CHECKS: tuple[Check, ...] = (
    # What has ended has ended, even if spec.suspend or the deadline came in the same moment.
    child_failed,
    child_complete,
    out_of_time,
    suspended,
    # From here on the job is meant to run.
    name_held,
    not_allowed,
    refused,
    missing,
    held_back,
    watched,
)


def verdict(case: Case) -> Verdict:
    """Of the first check that has one; the last checks leave no case without."""
    return next(v for v in (check(case) for check in CHECKS) if v is not None)
