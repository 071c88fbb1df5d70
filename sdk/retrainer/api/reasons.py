"""Every reason a job can give, each with the sentence that goes with it.

A reason is one CamelCase word for scripts (`status.reason`, the reason of a condition); its sentence
is a template filled with what was observed. The reference page of the documentation is made from here.
"""

from dataclasses import dataclass
from enum import StrEnum

from retrainer.api.names import LABEL_JOB
from retrainer.errors import (
    BucketNotFound,
    Interrupted,
    NotFound,
    RetrainerError,
    StorageDenied,
    StorageError,
    UserError,
)


class ConditionType(StrEnum):
    """Types of `status.conditions`."""

    SUSPENDED = "Suspended"
    BOTTLENECKS_READY = "BottlenecksReady"
    COMPLETE = "Complete"
    FAILED = "Failed"
    STALLED = "Stalled"
    """Set with Failed: by it kstatus, and so Flux and Helm 4's --wait, see that the job failed."""


class Kind(StrEnum):
    """The state of the job that a reason stands for."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True)
class Reason:
    """A reason: one word, with the sentence and the advice that belong to it.

    Attributes:
        name: the word.
        kind: waiting reasons pass once what they name is mended; failed ones are final.
        sentence: template for `str.format`.
        advice: what to do next; for the reference page and `retrainer describe`.
        error_class: what a program raises that ends with this reason.
    """

    name: str
    kind: Kind
    sentence: str
    advice: str = ""
    error_class: type[RetrainerError] = RetrainerError

    def __call__(self, **values: object) -> str:
        """Fill the sentence with what was observed; a stop ends it, whatever a detail ends with."""
        text = self.sentence.format(**values).rstrip()
        return text if text.endswith((".", "?", "!")) else f"{text}."

    def error(self, **values: object) -> RetrainerError:
        """Make the exception that says this sentence and carries this reason."""
        return self.error_class(self(**values), reason=self.name)


def _waiting(name: str, sentence: str, advice: str = "") -> Reason:
    return Reason(name, Kind.WAITING, sentence, advice)


def _failed(
    name: str, sentence: str, advice: str = "", *, error: type[RetrainerError] = RetrainerError
) -> Reason:
    return Reason(name, Kind.FAILED, sentence, advice, error)


# --- waiting: the phase stays, the job goes on once this is mended ---
WAITING_FOR_OPERATOR = _waiting(
    "WaitingForOperator",
    "No operator has taken this job up yet.",
    "Check that the operator runs and watches this namespace (the chart's namespaces value).",
)
CREATED = _waiting("Created", "Waiting for the first pod of Job {child}.")
QUEUED = _waiting("Queued", "Job {child} waits in Kueue queue {queue}.")
SUSPENDED = _waiting(
    "Suspended",
    "Suspended by spec.suspend; finished bottlenecks are kept.",
    "Set spec.suspend to false, or run: retrainer resume NAME",
)
POD_STARTING = _waiting("PodStarting", "Pod {pod} is starting.")
UNSCHEDULABLE = _waiting(
    "Unschedulable",
    "Pod {pod} fits on no node: {detail}",
    "Add a node, or create the job again with less in spec.pod.resources, or another nodeSelector.",
)
IMAGE_PULL_FAILED = _waiting(
    "ImagePullFailed",
    "The trainer's container image cannot be pulled for pod {pod}: {detail}",
    "Check the chart's trainer.image values and the node's access to the registry.",
)
SECRET_MISSING = _waiting(
    "SecretMissing",
    "Pod {pod} waits for Secret {secret} with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: {detail}",
    "Create the Secret in the job's namespace; the pod then goes on by itself.",
)
POD_BLOCKED = _waiting(
    "PodBlocked",
    "Pod {pod} cannot start: {detail}",
    f"Read the pod's events: kubectl describe pod -l {LABEL_JOB}=NAME",
)
QUOTA_EXCEEDED = _waiting(
    "QuotaExceeded",
    "A quota of the namespace is used up, and Job {child} waits: {detail}",
    "Free some of the quota, or create the job again with less in spec.pod.resources.",
)
POD_REFUSED = _waiting(
    "PodRefused",
    "Job {child} cannot create a pod: {detail}",
    "Usually a Pod Security level or an admission webhook refuses it; the message says which.",
)
WAITING_FOR_CLEANUP = _waiting(
    "WaitingForCleanup", "An earlier Job {child} is still being deleted."
)
NAME_TAKEN = _waiting(
    "NameTaken",
    "A Job named {child} exists and belongs to {owner}; it is left alone.",
    "Delete or rename that Job, or give the RetrainJob another name.",
)
NOT_PERMITTED = _waiting(
    "NotPermitted",
    "The operator may not {verb} {resource} in namespace {namespace}: {detail}",
    "Grant the chart's Role in that namespace, or add it to the chart's namespaces value.",
)
RETRYING = _waiting(
    "Retrying",
    "Pod {pod} failed and is tried again: {detail}",
    "Read the log of the pod that failed: retrainer logs NAME",
)

# --- running: the stage that the report names ---
BOTTLENECKS = Reason(
    "ComputingBottlenecks",
    Kind.RUNNING,
    "Computing bottlenecks: {done} of {total} images, {cached} from the cache.",
)
TRAINING = Reason("TrainingHead", Kind.RUNNING, "Training the head: step {step} of {steps}.")
EXPORTING = Reason("Exporting", Kind.RUNNING, "Evaluating and exporting.")
RUNNING = Reason("Running", Kind.RUNNING, "Pod {pod} is running.")

# --- succeeded ---
SUCCEEDED = Reason(
    "Succeeded", Kind.SUCCEEDED, "Test accuracy {accuracy} on {images} images; run in {run}."
)
SUCCEEDED_UNTESTED = Reason(
    "Succeeded", Kind.SUCCEEDED, "Trained; no test images, so no test accuracy; run in {run}."
)
REPORT_LOST = Reason(
    "ReportLost",
    Kind.SUCCEEDED,
    "Training finished, but its pod is gone with the report: see {result}.",
)

# --- failed: final ---
INVALID_SPEC = _failed(
    "InvalidSpec",
    "{detail}",
    "Fix the field that the message names and create the job again.",
    error=UserError,
)
NOT_ALLOWED = _failed(
    "NotAllowed",
    "{detail}",
    "Ask who installed the operator to allow it by the chart's value that the message names.",
)
CHILD_REFUSED = _failed(
    "ChildRefused",
    "The API server refused Job {child} as invalid: {detail}",
    "Fix spec.pod as the message says and create the job again.",
)
DEADLINE_EXCEEDED = _failed(
    "DeadlineExceeded",
    "Not finished within activeDeadlineSeconds ({seconds} s).",
    "Create the job again with a longer activeDeadlineSeconds; computed bottlenecks are in the cache.",
)
OOM_KILLED = _failed(
    "OOMKilled",
    "Pod {pod} was killed for using more memory than its limit of {limit}.",
    "Create the job again with a larger spec.pod.resources.limits.memory.",
)
BACKOFF_LIMIT_EXCEEDED = _failed(
    "BackoffLimitExceeded",
    "Failed {times}; the last pod: {detail}",
    "Read the last pod's log: retrainer logs NAME",
)
TRAINER_FAILED = _failed("TrainerFailed", "{detail}", "Read the log: retrainer logs NAME")
CHILD_LOST = _failed(
    "ChildFailed",
    "Job {child} failed: {detail}",
    f"Read the Job's events: kubectl describe job -l {LABEL_JOB}=NAME",
)

# --- failed, reported by the trainer (exit 64: not tried again) ---
NO_IMAGES = _failed(
    "ImagesNotFound",
    "No images under {url}: {detail}",
    "Put one folder per label there, with the images inside.",
    error=NotFound,
)
BUCKET_NOT_FOUND = _failed(
    BucketNotFound.reason,
    "Bucket {bucket} ({field}) does not exist at {endpoint}.",
    "Create the bucket, or fix the field; check too that storage.endpoint is the right server.",
    error=BucketNotFound,
)
STORAGE_DENIED = _failed(
    StorageDenied.reason,
    "{endpoint} refused access to bucket {bucket} ({field}) with access key {key}: {detail}",
    "Check the Secret's keys and the bucket's policy.",
    error=StorageDenied,
)
TOO_FEW_LABELS = _failed(
    "TooFewLabels",
    "At least 2 labels are needed in {url}, which has {count}: {detail}",
    "Put one folder per label there, with the images inside; in a manifest, list images of both.",
    error=UserError,
)
SETS_ON_TOP = _failed(
    "SetsOnTop",
    "{url} has sets on top, not labels: {folders}. Name one of them, such as {url}/{first}, or put "
    "their label folders together; spec.split makes the sets.",
    "Point spec.images at the folder that holds the label folders themselves.",
    error=UserError,
)
MANIFEST_UNREADABLE = _failed(
    "ManifestUnreadable",
    "{url} (spec.manifest) cannot be read as a list of images: {detail}",
    "Name a CSV, TSV, JSON Lines or Parquet file with the columns path and label.",
    error=UserError,
)
CORRECTIONS_UNREADABLE = _failed(
    "CorrectionsUnreadable",
    "{url} (spec.corrections) cannot be applied: {detail}",
    "Each row needs a path, an action (relabel, drop or keep) and, to relabel, a label that there is.",
    error=UserError,
)
LABEL_WITHOUT_TRAINING = _failed(
    "LabelWithoutTraining",
    "Labels without a training image: {labels}.",
    "Add images to those folders, or lower testingPercentage and validationPercentage.",
    error=UserError,
)
TOO_MANY_REJECTED = _failed(
    "TooManyRejected",
    "{rejected} of {total} images cannot be read, more than maxRejectedFraction {limit} allows; "
    "the first: {first}.",
    "Fix or remove them (rejected.csv in the run lists them all), or raise maxRejectedFraction.",
    error=UserError,
)
DIVERGED = _failed(
    "Diverged",
    "The training diverged at step {step} with learningRate {rate:g}; try {suggestion:g}. "
    "The last finite head is saved.",
    "Create the job again with the smaller learningRate; the bottlenecks are cached.",
    error=UserError,
)
WEIGHTS_NOT_FOUND = _failed(
    "WeightsNotFound",
    "No weights for {architecture} in {url}; it has: {listed}.",
    "Put the architecture's file there, or create the job again with an architecture of those.",
    error=UserError,
)
WEIGHTS_UNREADABLE = _failed(
    "WeightsUnreadable",
    "{url} holds no weights for {architecture}: {detail}",
    "Put the whole file there, as Keras publishes it for this architecture.",
    error=UserError,
)
BACKBONE_REFUSED = _failed(
    "BackboneRefused",
    "{file} cannot be the backbone: {detail}",
    "The sentence says what to do; docs/reference/backbones.md has the limits.",
    error=UserError,
)
BACKBONE_NOT_FOUND = _failed(
    "BackboneNotFound",
    "No backbone in {url}: {listed}.",
    "Name the folder that holds model.onnx, onnx/model.onnx or backbone.tflite, or the file itself, in "
    "spec.backbone.url.",
    error=UserError,
)
BACKBONE_INCOMPLETE = _failed(
    "BackboneIncomplete",
    "{detail}",
    "Set the field of spec.backbone that the sentence names, or mend the file.",
    error=UserError,
)
EXPORT_DIFFERS = _failed(
    "ExportDiffers",
    "The exported {export} disagrees with the head on {differ} of {total} images.",
    "A fault of Retrainer or of a library it exports with: please report it.",
)
TENSORFLOW_MISSING = _failed(
    "TensorFlowMissing",
    "{field} needs TensorFlow, which is not installed here: pip install 'retrainer[tensorflow]'.",
    "On a cluster, the chart's trainer.tensorflowImage names the container image that has it.",
    error=UserError,
)
EXPORT_DAMAGED = _failed(
    "ExportDamaged",
    "The exported {export} does not hold the numbers that were trained.",
    "Check the disk that holds the temporary files; else a fault of Retrainer: please report it.",
)

# --- errors that are tried again ---
STORAGE_UNAVAILABLE = _failed(
    StorageError.reason,
    "Cannot reach {endpoint}: {detail}",
    "Check storage.endpoint and the network from the pod.",
    error=StorageError,
)
DISK_FULL = _failed(
    "DiskFull",
    "No space left writing {url}.",
    "Free some space; the run goes on.",
    error=StorageError,
)
INTERRUPTED = _failed(
    Interrupted.reason,
    "Stopped before the end; what was computed is in the cache: run it again to go on.",
    error=Interrupted,
)
INTERNAL_ERROR = _failed("InternalError", "{detail}", "Please report it with the log.")

REASONS: tuple[Reason, ...] = tuple(v for v in list(globals().values()) if isinstance(v, Reason))

_ERROR_CLASSES = {
    reason.name: reason.error_class for reason in REASONS if reason.kind is Kind.FAILED
}


def error_class(name: str, default: type[RetrainerError]) -> type[RetrainerError]:
    """Look up what is raised for the reason called `name`; `default` where it says nothing special."""
    chosen = _ERROR_CLASSES.get(name, RetrainerError)
    return default if chosen in {RetrainerError, UserError} else chosen
