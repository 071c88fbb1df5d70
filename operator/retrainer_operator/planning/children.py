"""Builds the two batch/v1 Jobs of a job.

`<name>-bottlenecks` is an Indexed Job with one pod per shard, made only when there is more than one;
`<name>-train` does the rest, and is right on its own.
"""

from typing import Any, Literal

from retrainer.api import Resources, RetrainJob, Task
from retrainer.api.names import (
    API_VERSION,
    CONTAINER,
    ENV_TASK,
    EXIT_USER,
    KIND,
    KUEUE_PREFIX,
    KUEUE_QUEUE,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_TASK,
    LABEL_UID,
    MANAGED_BY,
    REPORT_PORT,
    TASK_TRAIN,
    child,
)
from retrainer_operator.settings import Settings

# Room for the exports and a converted backbone: the largest (Inception V3 in six formats) take 0.7 GiB.
_SCRATCH_LIMIT = "4Gi"
_SCRATCH = "/tmp"  # noqa: S108 - the pod's own emptyDir
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_OPTIONAL = frozenset({"AWS_SESSION_TOKEN"})

Body = dict[str, Any]


def bottlenecks(job: RetrainJob, settings: Settings, *, deadline: int | None) -> Body:
    """Build the Indexed Job that computes the shards; `deadline` is the job's remaining seconds."""
    spec = {
        "completionMode": "Indexed",
        "completions": job.spec.shards,
        "parallelism": job.spec.shards,
        "backoffLimitPerIndex": job.spec.backoff_limit,
        # One shard that gave up is enough: the others would work for nothing.
        "maxFailedIndexes": 0,
    }
    return _child(job, settings, "bottlenecks", spec, deadline)


def train(job: RetrainJob, settings: Settings, *, deadline: int | None) -> Body:
    """Build the Job that trains; `deadline` is the job's remaining seconds."""
    return _child(job, settings, TASK_TRAIN, {"backoffLimit": job.spec.backoff_limit}, deadline)


def labels_of(job: RetrainJob, task: str) -> dict[str, str]:
    """Make the labels of a child and of its pods, by which they are watched."""
    return {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_JOB: job.name,
        LABEL_UID: job.metadata.uid or "",
        LABEL_TASK: task,
    }


def kueue_labels(job: RetrainJob) -> dict[str, str]:
    """Choose the job's labels that are meant for Kueue, which reads those of the child."""
    return {k: v for k, v in job.metadata.labels.items() if k.startswith(KUEUE_PREFIX)}


def owner_reference(job: RetrainJob) -> Body:
    """Make the owner reference, by which a child belongs to its job and is deleted with it."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": job.name,
        "uid": job.metadata.uid,
        "controller": True,
        # True would need the right to set finalizers, and the job need not wait for its children to go.
        "blockOwnerDeletion": False,
    }


def queue_of(job: RetrainJob) -> str | None:
    """Read the Kueue queue that the job is labelled for."""
    return job.metadata.labels.get(KUEUE_QUEUE)


def _child(
    job: RetrainJob,
    settings: Settings,
    task: Literal["bottlenecks", "train"],
    spec: Body,
    deadline: int | None,
) -> Body:
    labels = labels_of(job, task)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": child(job.name, task),
            "namespace": job.namespace,
            "labels": {**kueue_labels(job), **labels},
            "ownerReferences": [owner_reference(job)],
        },
        "spec": {
            **spec,
            # Replace a pod only once it is gone: two at once would ask for twice the quota.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    # This rule comes first, so that an evicted pod never counts, whatever its exit code.
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [EXIT_USER],
                        },
                    },
                ]
            },
            # With a queue, Kueue alone lets it run.
            "suspend": queue_of(job) is not None,
            **({} if deadline is None else {"activeDeadlineSeconds": deadline}),
            "template": {
                "metadata": {
                    "labels": {**job.spec.pod.labels, **labels},
                    "annotations": {
                        **job.spec.pod.annotations,
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(REPORT_PORT),
                        "prometheus.io/path": "/metrics",
                    },
                },
                "spec": _pod(job, settings, Task.of(job, task)),
            },
        },
    }


def _pod(job: RetrainJob, settings: Settings, task: Task) -> Body:
    asked, usual = job.spec.pod, settings.trainer_scheduling
    pod: Body = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": CONTAINER,
                "image": _image(job, settings),
                "imagePullPolicy": settings.image_pull_policy,
                "env": _environment(job, task),
                "ports": [{"name": "metrics", "containerPort": REPORT_PORT}],
                "resources": _resources(asked.resources, settings.trainer_resources),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [{"name": "scratch", "mountPath": _SCRATCH}],
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": _SCRATCH_LIMIT}}],
    }
    optional: Body = {
        "serviceAccountName": asked.service_account_name or settings.trainer_service_account,
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": asked.node_selector or usual.node_selector,
        "tolerations": [t.dump() for t in asked.tolerations or usual.tolerations],
        "affinity": asked.affinity or usual.affinity,
        "priorityClassName": asked.priority_class_name or usual.priority_class_name,
    }
    return pod | {field: value for field, value in optional.items() if value}


def _resources(asked: Resources | None, usual: Resources) -> Body:
    """Take the job's resources, and the operator's for each (cpu, memory, ...) that the job lacks."""
    if asked is None:
        return usual.dump()
    named = asked.requests.keys() | asked.limits.keys()
    return Resources(
        requests={k: v for k, v in usual.requests.items() if k not in named} | asked.requests,
        limits={k: v for k, v in usual.limits.items() if k not in named} | asked.limits,
    ).dump()


def _image(job: RetrainJob, settings: Settings) -> str:
    """Choose the container image: the one with TensorFlow for a job that needs it, if it is set."""
    resources = _resources(job.spec.pod.resources, settings.trainer_resources)
    if job.spec.tensorflow_field or Resources.model_validate(resources).gpu:
        return settings.trainer_tensorflow_image or settings.trainer_image
    return settings.trainer_image


def _environment(job: RetrainJob, task: Task) -> list[Body]:
    environment: list[Body] = [
        {"name": ENV_TASK, "value": task.to_json()},
        # The root file system is read-only: libraries that keep files in the home keep them in /tmp.
        {"name": "HOME", "value": _SCRATCH},
        {"name": "TMPDIR", "value": _SCRATCH},
    ]
    secret = job.spec.storage.secret_name
    if secret:
        for name in _CREDENTIALS:
            key = {"name": secret, "key": name, "optional": name in _OPTIONAL}
            environment.append({"name": name, "valueFrom": {"secretKeyRef": key}})
    return environment
