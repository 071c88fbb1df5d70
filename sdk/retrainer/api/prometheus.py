"""Names, types and help of every Prometheus metric, used by the operator, the trainer and the docs."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric family.

    Attributes:
        name: of the family; counters get `_total` when exposed.
        kind: as Prometheus has it.
        help: one sentence, with the unit.
        labels: names of its labels.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


_JOB = ("namespace", "name")

# --- one job each, on the operator's /metrics, leader only ---
JOB_TRAINING_ACCURACY = Metric(
    "retrainer_job_training_accuracy",
    "gauge",
    "Accuracy on the latest training batch, 0 to 1.",
    _JOB,
)
JOB_VALIDATION_ACCURACY = Metric(
    "retrainer_job_validation_accuracy",
    "gauge",
    "Latest accuracy on validation images, 0 to 1.",
    _JOB,
)
JOB_CROSS_ENTROPY = Metric(
    "retrainer_job_cross_entropy",
    "gauge",
    "Cross entropy of the latest training batch, nats.",
    _JOB,
)
JOB_VALIDATION_CROSS_ENTROPY = Metric(
    "retrainer_job_validation_cross_entropy",
    "gauge",
    "Latest validation cross entropy, nats.",
    _JOB,
)
JOB_TEST_ACCURACY = Metric(
    "retrainer_job_test_accuracy", "gauge", "Final accuracy on the test images, 0 to 1.", _JOB
)
JOB_FINDINGS = Metric(
    "retrainer_job_findings",
    "gauge",
    "Findings among the images by kind: label, leak, duplicate, stranger.",
    (*_JOB, "kind"),
)
JOB_MIN_ACCURACY = Metric(
    "retrainer_job_min_accuracy", "gauge", "Annotation retrainer.dev/min-accuracy, 0 to 1.", _JOB
)
JOB_STEP = Metric("retrainer_job_step", "gauge", "Training steps done.", _JOB)
JOB_STEPS = Metric("retrainer_job_steps", "gauge", "Training steps asked for.", _JOB)
JOB_IMAGES = Metric(
    "retrainer_job_images",
    "gauge",
    "Images by state: total, cached, computed, rejected.",
    (*_JOB, "state"),
)
JOB_IMAGES_PER_SECOND = Metric(
    "retrainer_job_images_per_second", "gauge", "Bottlenecks computed per second.", _JOB
)
JOB_PHASE = Metric(
    "retrainer_job_phase", "gauge", "1 for the phase that the job is in.", (*_JOB, "phase")
)
JOB_REASON = Metric(
    "retrainer_job_reason", "gauge", "1 for the reason the job gives.", (*_JOB, "reason")
)
JOB_INFO = Metric(
    "retrainer_job_info", "gauge", "1; what the job retrains.", (*_JOB, "architecture", "backbone")
)
JOB_CREATED = Metric(
    "retrainer_job_created_timestamp_seconds", "gauge", "When the job was created, Unix time.", _JOB
)
JOB_FINISHED = Metric(
    "retrainer_job_finished_timestamp_seconds",
    "gauge",
    "When the job ended, Unix time; only of finished jobs.",
    _JOB,
)
JOB_CURVE = Metric(
    "retrainer_job_curve",
    "gauge",
    "Learning curve of the latest jobs, one series per point: accuracies 0 to 1, entropies in nats.",
    (*_JOB, "metric", "step"),
)

# --- the operator itself ---
JOBS_FINISHED = Metric(
    "retrainer_jobs_finished",
    "counter",
    "Jobs that ended, by outcome and reason.",
    ("outcome", "reason"),
)
RECONCILES = Metric("retrainer_reconciles", "counter", "Passes over a job, by result.", ("result",))
RECONCILE_SECONDS = Metric("retrainer_reconcile_seconds", "histogram", "Time of one pass, seconds.")
QUEUE_DEPTH = Metric("retrainer_queue_depth", "gauge", "Jobs that wait for a pass.")
QUEUE_SECONDS = Metric(
    "retrainer_queue_seconds", "histogram", "Time a job waits for a pass, seconds."
)
API_WRITES = Metric(
    "retrainer_api_writes",
    "counter",
    "Writes to the API server, by verb, resource and status code.",
    ("verb", "resource", "code"),
)
STATUSES_REFUSED = Metric(
    "retrainer_statuses_refused",
    "counter",
    "Writes of a job's status that the API server refused as invalid.",
)
LEADER = Metric("retrainer_leader", "gauge", "1 while this replica holds the Lease.")
LAST_RESYNC = Metric(
    "retrainer_last_resync_timestamp_seconds", "gauge", "When the last full list ended, Unix time."
)
NAMESPACES_SKIPPED = Metric(
    "retrainer_namespaces_skipped",
    "gauge",
    "Namespaces without the rights that the operator needs.",
)
ASYNCIO_TASKS = Metric(
    "retrainer_asyncio_tasks",
    "gauge",
    "Tasks of this replica's event loop; at rest there are as many as after its start.",
)

# --- a trainer pod's own /metrics ---
TASK_IMAGES = Metric(
    "retrainer_task_images",
    "gauge",
    "Images by state: total, cached, computed, rejected.",
    ("state",),
)
TASK_IMAGES_PER_SECOND = Metric(
    "retrainer_task_images_per_second", "gauge", "Bottlenecks computed per second."
)
TASK_STEP = Metric("retrainer_task_step", "gauge", "Training steps done.")
TASK_TRAINING_ACCURACY = Metric(
    "retrainer_task_training_accuracy", "gauge", "Accuracy on the latest training batch, 0 to 1."
)
TASK_VALIDATION_ACCURACY = Metric(
    "retrainer_task_validation_accuracy", "gauge", "Latest accuracy on validation images, 0 to 1."
)
TASK_CROSS_ENTROPY = Metric(
    "retrainer_task_cross_entropy", "gauge", "Cross entropy of the latest training batch, nats."
)
TASK_VALIDATION_CROSS_ENTROPY = Metric(
    "retrainer_task_validation_cross_entropy", "gauge", "Latest validation cross entropy, nats."
)

METRICS: tuple[Metric, ...] = tuple(v for v in list(globals().values()) if isinstance(v, Metric))
