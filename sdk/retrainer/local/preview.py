"""Looks at a job before it runs, by the trainer: `retrainer.check` and `retrainer.plan`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrainer.api import RetrainJob, parse_job
from retrainer.api.names import API_VERSION, KIND, TASK_CHECK, TASK_PLAN
from retrainer.api.preview import Inspection, Plan
from retrainer.jobfile import DEFAULT_ARCHITECTURE, DEFAULT_OUTPUT, as_job
from retrainer.local.process import ask


def check(
    images: RetrainJob | Mapping[str, Any] | str | Path,
    *,
    decode: bool = False,
    s3_endpoint: str | None = None,
) -> Inspection:
    """Look at a folder of images as a run would, without training and without any network.

    Args:
        images: path or URL of the images, a folder per label; or a job, whose images and split it is.
        decode: decode every image, which also finds those that are damaged inside: seconds become
            minutes where there are 100,000. Else only the headers are read.
        s3_endpoint: as `retrainer.run`'s.

    Returns:
        Labels and their counts, sizes, formats, what cannot be read, and copies; `problem` says why a
        run would be refused.

    Raises:
        UserError: there is no such folder, it has no images, or a label that cannot be trained.
    """
    job = _job_of(images) if isinstance(images, (str, Path)) else as_job(images)
    answer = ask(job, TASK_CHECK, decode=decode, s3_endpoint=s3_endpoint)
    return Inspection.model_validate(answer)


def _job_of(images: str | Path) -> RetrainJob:
    """Make a job of images alone; nothing is written to its output."""
    spec = {
        "images": str(images), "architecture": DEFAULT_ARCHITECTURE, "output": DEFAULT_OUTPUT,
    }  # fmt: skip
    document = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": "check"},
        "spec": spec,
    }
    return parse_job(document)


def plan(
    job: RetrainJob | Mapping[str, Any] | str | Path, *, s3_endpoint: str | None = None
) -> Plan:
    """Say what a job would compute, read, take and write here; nothing is computed or written.

    Args:
        job: as `retrainer.run`'s.
        s3_endpoint: as `retrainer.run`'s.

    Returns:
        Images, labels, what the cache has and lacks, bytes to read, files to write; and the seconds
        and bytes of memory expected, from the last run with this cache and network.

    Raises:
        InvalidJob: the job is wrong; one sentence per field.
        UserError: the images or the weights are wrong.
    """
    return Plan.model_validate(ask(as_job(job), TASK_PLAN, s3_endpoint=s3_endpoint))
