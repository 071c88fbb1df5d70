"""Opens what a text names, a run or a job: one rule for Python and the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from retrainer.api import Storage
from retrainer.api.names import JOB_PREFIXES
from retrainer.errors import ClusterError, NotFound, UserError
from retrainer.results.run import Run
from retrainer.store.s3 import Access

Job = TypeVar("Job")


def named(text: str, *, job: Callable[[str], Job], run: Callable[[str], Run]) -> Job | Run:
    """Open the job or the run that a text names.

    `rj/NAME` is a job. What has a / in it, or begins with . or ~, is a path or URL: of a run, or of an
    output, whose newest run it is. A plain word is a folder of this machine if that holds a run, else a
    job.

    Args:
        text: what is given.
        job: reads the job of a name.
        run: opens the run at a path or URL.

    Raises:
        NotFound: there is neither.
        UserError: it is something else, such as a picture.
    """
    if text.startswith(JOB_PREFIXES):
        return job(text.partition("/")[2])
    if "/" in text or text.startswith((".", "~")):
        return run(text)
    if not Path(text).exists():
        return _job(text, job)
    try:
        return run(text)
    except NotFound as no_run:
        try:
            return job(text)
        except (UserError, ClusterError):
            raise no_run from None


def _job(name: str, job: Callable[[str], Job]) -> Job:
    """Read the job of this name; if there is none, say that no folder here has the name either."""
    try:
        return job(name)
    except NotFound as error:
        raise NotFound(f"{error} There is no folder {name} here either.") from error
    except UserError as error:
        raise NotFound(
            f"There is no folder {name} here, and no cluster to ask for a job of that name: {error}"
        ) from error


def run_at(place: str | Path, storage: Storage | None = None, access: Access | None = None) -> Run:
    """Open the run at a path or URL, or the newest one under it.

    Raises:
        NotFound: there is none.
        UserError: it is a file.
    """
    from retrainer.inference.classifier import newest_run

    place = str(place)
    if "://" not in place:
        place = str(Path(place).expanduser())  # ./out is out
    return Run(newest_run(place, storage, access), storage=storage, access=access)
