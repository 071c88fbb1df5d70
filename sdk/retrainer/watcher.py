"""The protocol by which a job's progress is followed, on this machine (`run`) and a cluster (`wait`)."""

from typing import Protocol

from typing_extensions import override

from retrainer.api import Report


class Watcher(Protocol):
    """An object that `progress=` of `run`, `Job.wait` and `Client.wait` takes: it has these methods."""

    def report(self, report: Report) -> None:
        """Take what the job has done so far: its stage, counts, step and accuracies."""

    def log(self, text: str) -> None:
        """Take a line on what is being done, where that takes long; of a run on this machine."""

    def warning(self, text: str) -> None:
        """Take what a person should know of the images or the job; of a run on this machine."""


def checked(progress: Watcher) -> Watcher:
    """Refuse what is no watcher before a job starts.

    Raises:
        TypeError: it lacks a method of `Watcher`.
    """
    lacking = [m for m in ("report", "log", "warning") if not callable(getattr(progress, m, None))]
    if lacking:
        raise TypeError(
            "Give True, False, None, or an object with the methods report, log and warning as "
            f"progress: {progress!r} has no {lacking[0]}."
        )
    return progress


class Silent(Watcher):
    """A watcher that shows nothing."""

    @override
    def report(self, report: Report) -> None:
        pass

    @override
    def log(self, text: str) -> None:
        pass

    @override
    def warning(self, text: str) -> None:
        pass
