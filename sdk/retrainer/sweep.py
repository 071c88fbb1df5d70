"""One job per architecture over one set of images: what accuracy costs, on one's own photos."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrainer.api import ARCHITECTURES, RetrainJob
from retrainer.api.names import NAME_MAX
from retrainer.errors import Interrupted, JobFailed, RetrainerError, UserError
from retrainer.jobfile import as_job
from retrainer.results.comparison import Comparison, compare
from retrainer.results.run import Run

if TYPE_CHECKING:
    from retrainer.cluster.client import Client
    from retrainer.cluster.job import Job

Log = Callable[[str], None]
"""Log a sentence on how it is going."""


def matching(patterns: str | Iterable[str]) -> list[str]:
    """Architectures that match, cheapest first.

    Args:
        patterns: names or shell patterns, such as `mobilenet_*` or `mobilenet_0.?0_160`; one,
            several, or several in one text with commas. A pattern matches a `_quantized` name only if
            it ends with that word: the twin has the same float accuracy.

    Raises:
        UserError: a pattern matches nothing.
    """
    texts = [patterns] if isinstance(patterns, str) else list(patterns)
    matches: set[str] = set()
    for pattern in (part.strip() for text in texts for part in text.split(",")):
        names = set(fnmatch.filter(ARCHITECTURES, pattern))
        if not pattern.endswith("quantized"):
            names = {n for n in names if not ARCHITECTURES[n].quantized}
        if not names:
            raise UserError(
                f"No architecture matches {pattern!r}.",
                command="retrainer architectures lists them.",
            )
        matches |= names
    return sorted(matches, key=lambda n: (ARCHITECTURES[n].multiply_adds, n))


def jobs_for(job: RetrainJob, architectures: Iterable[str]) -> list[RetrainJob]:
    """`job` once per architecture, each with a name of its own.

    Raises:
        UserError: the weights are those of one architecture only, or one file.
    """
    names = list(architectures)
    if job.spec.weights == "builtin" and {ARCHITECTURES[n].backbone for n in names} != {
        "mobilenet_0.25_128"
    }:
        raise UserError(
            "The weights builtin exist only for mobilenet_0.25_128: use imagenet, or a folder of them."
        )
    return [_for(job, name) for name in names]


def _for(job: RetrainJob, architecture: str) -> RetrainJob:
    slug = architecture.replace("_", "-").replace(".", "")
    name = f"{job.name[: NAME_MAX - 1 - len(slug)].rstrip('-')}-{slug}"
    return job.model_copy(
        update={
            "metadata": job.metadata.model_copy(update={"name": name, "uid": None}),
            "spec": job.spec.model_copy(deep=True, update={"architecture": architecture}),
        },
    )


def frontier(
    job: RetrainJob | Mapping[str, Any] | str | Path,
    architectures: str | Iterable[str],
    client: "Client | None" = None,
    *,
    timeout: float | None = None,
    log: Log = lambda _: None,
) -> Comparison:
    """Run `job` with each architecture and compare them.

    On a cluster all jobs are submitted at once and share the images (each architecture has its own
    bottlenecks in the cache); a job that is there already with the same spec is not run again. Here
    they run one after another.

    Args:
        job: a RetrainJob, a dict, or the path of a YAML file.
        architectures: names or patterns, see `matching`.
        client: submits them to its cluster; None runs them on this machine.
        timeout: seconds to wait for each job on a cluster.
        log: called with a sentence each time a job has ended.

    Returns:
        The comparison of the jobs that succeeded; its notes name those that failed.

    Raises:
        JobFailed: all of them failed; here, if all did for one reason, what a single job would raise.
    """
    jobs = jobs_for(as_job(job), matching(architectures))
    done, failed = _on_cluster(jobs, client, timeout, log) if client else _here(jobs, log)
    if not done:
        raise JobFailed("No job of the frontier succeeded:" + "".join(f"\n  {f}" for f in failed))
    comparison = compare(done)
    rates = [row.name for row in comparison.rows if row.images_per_second]
    lacking = [f"Left out: {sentence}" for sentence in failed]
    notes = [*comparison.notes, *lacking, *([_SHARED] if client and len(rates) > 1 else [])]
    return Comparison(comparison.rows, comparison.differences, notes)


_SHARED = (
    "Images per second are of jobs that may have run side by side on the same nodes: multiply-adds "
    "are the better measure of what each network costs."
)


Done = tuple[Sequence["Job | Run"], list[str]]


def _on_cluster(jobs: list[RetrainJob], client: "Client", timeout: float | None, log: Log) -> Done:
    submitted = [client.submit(job) for job in jobs]
    log(f"submitted {len(submitted)} jobs to {client.namespace}")
    done, failed = [], []
    for job in submitted:
        try:
            done.append(job.wait(timeout, progress=None))
            log(f"{job.name}: {job.sentence}")
        except JobFailed as error:
            failed.append(str(error))
            log(str(error))
    return done, failed


def _here(jobs: list[RetrainJob], log: Log) -> Done:
    from retrainer.local.display import Display
    from retrainer.local.process import run
    from retrainer.views.text import console

    done, failed = [], {}
    for job in jobs:
        log(f"{job.name}: {job.spec.architecture}")
        try:
            # On stderr: the comparison is the output.
            with Display(console(stderr=True)) as display:
                result = run(job, progress=display)
        except Interrupted:
            raise
        except RetrainerError as error:
            failed[job.name] = error
            log(f"{job.name}: {error}")
            continue
        log(f"{job.name}: {result}")
        done.append(result)
    if not done and len({str(error) for error in failed.values()}) == 1:
        raise next(iter(failed.values()))  # a mistake in what they share
    return done, [f"{name}: {error}" for name, error in failed.items()]
