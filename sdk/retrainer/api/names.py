"""Names in the cluster: the API group, labels, annotations, children, and the run's folder."""

from typing import Final

GROUP = "retrainer.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "RetrainJob"
PLURAL = "retrainjobs"
SHORT = "rj"
JOB_PREFIXES = (f"{SHORT}/", "retrainjob/", f"{PLURAL}/", f"{KIND.lower()}.{GROUP}/")
"""Prefixes that kubectl and `-o name` write before a job's name; with one, a text names a job."""

# 63, what a pod's name may have as a label, less "-bottlenecks" and "-9999" (the largest index).
NAME_MAX = 46
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

LABEL_JOB = f"{GROUP}/job"
"""Label of children and their pods: the name of their RetrainJob."""
LABEL_UID = f"{GROUP}/job-uid"
"""Label of children and their pods: the uid of their RetrainJob."""
LABEL_TASK = f"{GROUP}/task"
"""Label of children and their pods: `bottlenecks` or `train`."""
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGED_BY = "retrainer"
"""Children carry `app.kubernetes.io/managed-by: retrainer`; the operator watches only those."""

ANNOTATION_MIN_ACCURACY = f"{GROUP}/min-accuracy"
"""On a RetrainJob: the test accuracy (0 to 1) under which the shipped alert fires."""

KUEUE_PREFIX = "kueue.x-k8s.io/"
KUEUE_QUEUE = f"{KUEUE_PREFIX}queue-name"

CONTAINER = "trainer"
"""Name of the only container of a trainer pod."""
ENV_TASK = "RETRAINER_TASK"
"""Environment variable of a trainer pod: its Task as JSON."""
ENV_EVENTS = "RETRAINER_EVENTS_FD"
"""Environment variable of a trainer that runs here: the pipe that it writes its events to."""
ENV_PORT = "RETRAINER_PORT"
"""Environment variable of a trainer: its port instead of REPORT_PORT; 0 serves nothing."""
ENV_SHARD = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in a pod of an Indexed Job; the shard that this pod computes."""
REPORT_PORT = 9464
"""Where a trainer pod serves `/report` and `/metrics`."""

TASK_BOTTLENECKS: Final = "bottlenecks"
TASK_TRAIN: Final = "train"
TASK_CHECK: Final = "check"
TASK_PLAN: Final = "plan"

EXIT_USER = 64
"""Exit code of a trainer whose spec or images are wrong: not to be retried (EX_USAGE)."""
EXIT_SIGTERM = 143
"""Exit code of a trainer that was asked to stop and flushed what it had (128 + SIGTERM)."""


def child(job: str, task: str) -> str:
    """Name the batch/v1 Job that does `task` for `job`."""
    return f"{job}-{task}"


def run_name(job: str, uid: str) -> str:
    """Name a run's folder under `spec.output`: the job and the first 8 characters of its uid."""
    return f"{job}-{uid[:8]}"
