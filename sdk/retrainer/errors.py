"""One small tree of exceptions, shared by the SDK, the operator and the trainer.

Each message is a sentence for the person who reads it: what is wrong, where, and what to do next.
Errors of other libraries are mapped to these in one place each (`store/` of the SDK and of
the trainer, `cluster/`), with the cause kept.

    RetrainerError              exit code 1
    ├── UserError               exit code 64: trying again will not help
    │   ├── InvalidJob
    │   ├── StorageDenied
    │   ├── BucketNotFound
    │   ├── NotFound
    │   ├── AlreadyExists
    │   └── MissingExtra
    ├── StorageError
    ├── ClusterError
    │   └── Forbidden
    ├── JobFailed
    ├── WaitTimeout             also a TimeoutError
    └── Interrupted             exit code 143
"""


class RetrainerError(Exception):
    """The base of everything that Retrainer raises on purpose.

    Attributes:
        reason: one CamelCase word of `retrainer.api.reasons`, for scripts.
        exit_code: what a command that ends with this error exits with.
        command: a sentence with what to type next; the command line adds it to the message.
    """

    reason = "Error"
    exit_code = 1
    command = ""

    def __init__(self, message: str, *, reason: str | None = None, command: str = "") -> None:
        super().__init__(message)
        self.command = command
        if reason is not None:
            self.reason = reason


class UserError(RetrainerError):
    """The spec, the images or the command are wrong: trying again will not help."""

    reason = "InvalidInput"
    exit_code = 64


class InvalidJob(UserError):
    """A RetrainJob that cannot be parsed; `problems` holds one sentence per wrong field."""

    reason = "InvalidSpec"

    def __init__(self, problems: list[str], *, where: str = "") -> None:
        self.problems = problems
        head = f"{where}: " if where else ""
        if len(problems) == 1:
            text = head + problems[0]
        else:
            text = head + f"{len(problems)} problems" + "".join(f"\n  {p}" for p in problems)
        super().__init__(text)


class StorageError(RetrainerError):
    """The store could not be reached or answered with an error; trying again may help."""

    reason = "StorageUnavailable"


class StorageDenied(UserError):
    """The store refused the credentials, or they do not allow this."""

    reason = "StorageDenied"


class BucketNotFound(UserError):
    """The bucket itself does not exist: no file of it will appear, however long one waits."""

    reason = "BucketNotFound"


class NotFound(UserError):
    """The named thing (a job, a folder, a file, a run) does not exist."""

    reason = "NotFound"


class ClusterError(RetrainerError):
    """The Kubernetes API server could not be reached or answered with an error."""

    reason = "ClusterUnavailable"


class Forbidden(ClusterError):
    """The Kubernetes API server refused: the message names the verb and the resource."""

    reason = "Forbidden"


class AlreadyExists(UserError):
    """A job of this name exists with another spec; the message names the fields that differ."""

    reason = "AlreadyExists"


class JobFailed(RetrainerError):
    """The job ended without a model; the message is the operator's own sentence."""

    reason = "Failed"


class WaitTimeout(RetrainerError, TimeoutError):
    """The job was not finished in the time given; it goes on."""

    reason = "Timeout"


class MissingExtra(UserError):
    """A part of Retrainer that is not installed; the message has the command that installs it."""

    reason = "MissingExtra"


class Interrupted(RetrainerError):
    """Stopped by a signal before the end; what was computed is in the cache."""

    reason = "Interrupted"
    exit_code = 143
