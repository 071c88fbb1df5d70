"""One job per network over one set of images: what accuracy costs, on one's own photos."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from retrainer.api import ARCHITECTURES, BackboneSource, RetrainJob
from retrainer.api.names import NAME_MAX
from retrainer.api.parsing import problems
from retrainer.errors import Interrupted, InvalidJob, JobFailed, RetrainerError, UserError
from retrainer.jobfile import as_job
from retrainer.results.comparison import Comparison, compare
from retrainer.results.run import Run

if TYPE_CHECKING:
    from retrainer.cluster.client import Client
    from retrainer.cluster.job import Job

_SLUG_MAX = 24

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
    if (
        names
        and job.spec.weights == "builtin"
        and {ARCHITECTURES[n].backbone for n in names} != {"mobilenet_0.25_128"}
    ):
        raise UserError(
            "The weights builtin exist only for mobilenet_0.25_128: use imagenet, or a folder of them."
        )
    return [_for(job, name) for name in names]


def _for(job: RetrainJob, architecture: str) -> RetrainJob:
    slug = architecture.replace("_", "-").replace(".", "")
    return _with(job, slug, {"architecture": architecture, "backbone": None})


def jobs_for_backbones(
    job: RetrainJob, backbones: Iterable[BackboneSource | Mapping[str, Any] | str]
) -> list[RetrainJob]:
    """`job` once per backbone, each with a name of its own and exported in the backbone's format.

    Raises:
        InvalidJob: a backbone is not one.
    """
    jobs = []
    names: set[str] = set()
    for given in backbones:
        source = source_of(given)
        parts = (source.name, source.token or "", source.output or "")
        slug = (
            re.sub("[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")[:_SLUG_MAX] or "backbone"
        )
        while slug in names:
            slug += "x"
        names.add(slug)
        fields = {"architecture": None, "backbone": source, "weights": "imagenet", "export": None}
        jobs.append(_with(job, slug, fields))
    return jobs


def source_of(given: BackboneSource | Mapping[str, Any] | str) -> BackboneSource:
    """Read a backbone: its fields, or a text as `s3://networks/vit_s,token=cls`.

    Raises:
        InvalidJob: it has fields that are wrong.
    """
    if isinstance(given, BackboneSource):
        return given
    fields: dict[str, Any] = {}
    if isinstance(given, str):
        url, *pairs = given.split(",")
        fields["url"] = url
        for pair in pairs:
            name, _, value = pair.partition("=")
            fields[name] = int(value) if value.isdigit() else value
    else:
        fields |= given
    try:
        return BackboneSource.model_validate(fields)
    except ValidationError as error:
        raise InvalidJob(problems(error, BackboneSource), where="backbone") from error


def _with(job: RetrainJob, slug: str, fields: Mapping[str, Any]) -> RetrainJob:
    name = f"{job.name[: NAME_MAX - 1 - len(slug)].rstrip('-')}-{slug}"
    return job.model_copy(
        update={
            "metadata": job.metadata.model_copy(update={"name": name, "uid": None}),
            "spec": job.spec.model_copy(deep=True, update=fields),
        },
    )


def frontier(
    job: RetrainJob | Mapping[str, Any] | str | Path,
    architectures: str | Iterable[str] = (),
    client: "Client | None" = None,
    *,
    backbones: Iterable[BackboneSource | Mapping[str, Any] | str] = (),
    timeout: float | None = None,
    log: Log = lambda _: None,
) -> Comparison:
    """Run `job` with each network and compare them.

    On a cluster all jobs are submitted at once and share the images (each network has its own
    bottlenecks in the cache); a job that is there already with the same spec is not run again. Here
    they run one after another.

    Args:
        job: a RetrainJob, a dict, or the path of a YAML file.
        architectures: names or patterns, see `matching`.
        backbones: networks of one's own: URLs or paths, with fields of `spec.backbone` behind commas
            (`s3://networks/vit_s,token=cls`), or these fields.
        client: submits them to its cluster; None runs them on this machine.
        timeout: seconds to wait for each job on a cluster.
        log: called with a sentence each time a job has ended.

    Returns:
        The comparison of the jobs that succeeded; its notes name those that failed.

    Raises:
        JobFailed: all of them failed; here, if all did for one reason, what a single job would raise.
    """
    base = as_job(job)
    jobs = [*jobs_for(base, matching(architectures)), *jobs_for_backbones(base, backbones)]
    if not jobs:
        raise UserError("Give architectures or backbones to compare.")
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
        log(f"{job.name}: {job.spec.network}")
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
