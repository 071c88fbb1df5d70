"""Runs a RetrainJob on this machine, by the trainer as a process of its own.

The trainer is the program a pod runs (`python -m retrainer_trainer`), with the Task a pod would get. It
writes its progress as JSON lines to a pipe, each one of `{"report": {...}}`, `{"log": "..."}`,
`{"warning": "..."}` and, where it was only asked about a job, `{"answer": {...}}`; what TensorFlow and
other libraries print goes to a log file, kept only if the run fails.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from pydantic import ValidationError

from retrainer.api import Phase, Report, RetrainJob, Storage, Task, reasons
from retrainer.api.interval import in_words
from retrainer.api.layout import REJECTED, REPORT_PAGE, join
from retrainer.api.names import (
    ENV_EVENTS,
    ENV_PORT,
    ENV_TASK,
    EXIT_SIGTERM,
    EXIT_USER,
    TASK_TRAIN,
)
from retrainer.api.parsing import problems
from retrainer.api.task import TaskName
from retrainer.errors import (
    Interrupted,
    InvalidJob,
    JobFailed,
    RetrainerError,
    UserError,
)
from retrainer.extras import require_trainer
from retrainer.jobfile import as_job
from retrainer.local import places
from retrainer.results.run import Run
from retrainer.store.s3 import ENV_ENDPOINT, Access
from retrainer.views.text import console
from retrainer.watcher import Silent, Watcher, checked

# -P: a file of the current folder named like a library must not be imported in its place.
TRAINER = (sys.executable, "-P", "-m", "retrainer_trainer")
GRACE_SECONDS = 30.0
"""How long a stopped trainer may take to save its segment; a kubelet gives as much."""
LOG_TAIL_BYTES = 4096

_RUNNING = {"", *(r.name for r in reasons.REASONS if r.kind == reasons.Kind.RUNNING)}
"""Reasons that say what the trainer is doing, not why it ended."""
_REPEATED = (
    "Error: ",
    "Traceback ",
    "Test accuracy ",
    "Final test accuracy ",
    reasons.INTERRUPTED(),
)
"""How log lines begin that only a pod's log needs: here the run's error or result says the same."""


class Result(Run):
    """A run that has just ended here: a `Run` whose report is known, so that nothing has to be read.

    Attributes:
        output: path or URL under which the run lies (`spec.output`).
    """

    def __init__(self, report: Report, url: str, output: str, storage: Storage) -> None:
        # Read it where the trainer has just written it, whatever endpoint the environment names.
        super().__init__(url, name=report.name, storage=storage, access=Access(storage.endpoint))
        self.report = report
        self.output = output

    @property
    def test_images(self) -> int:
        """Number of test images."""
        return self.report.metrics.test_images or 0

    @property
    def page(self) -> str:
        """Path or URL of `report.html`."""
        return join(self.url, REPORT_PAGE)

    def __str__(self) -> str:
        if self.test_accuracy is None:
            return f"trained, no test images; run in {self.url}"
        return f"test accuracy {in_words(self.test_accuracy, self.test_images)}"

    def __repr__(self) -> str:
        return f"<Result {self}, {self.url}>"


def run(
    job: RetrainJob | Mapping[str, Any] | str | Path,
    *,
    progress: bool | Watcher | None = True,
    s3_endpoint: str | None = None,
) -> Result:
    """Run a job on this machine to its end.

    Each call is a new run with its own folder under `spec.output`; bottlenecks of earlier runs are
    taken from the cache. Keys for s3:// come from the environment or `~/.aws`.

    Args:
        job: a RetrainJob, a dict, or the path of a YAML file. Its places may be paths.
        progress: True shows how it is going; None the same but silent where neither a terminal nor a
            notebook is there; False nothing; or a `retrainer.Watcher`.
        s3_endpoint: URL of the S3 server as this machine reaches it, where pods use another one;
            `$RETRAINER_S3_ENDPOINT` if None, else the job's own.

    Returns:
        Accuracy, files, and where they are.

    Raises:
        InvalidJob: the job is wrong, or one of its places here; one sentence per field.
        UserError: the images or weights are wrong; a new try will not help.
        Interrupted: Ctrl-C. The trainer has saved what it had.
        RetrainerError: anything else; the message names the log.
    """
    return run_program(job, progress=progress, s3_endpoint=s3_endpoint, program=TRAINER)


def run_program(
    job: RetrainJob | Mapping[str, Any] | str | Path,
    *,
    progress: bool | Watcher | None = True,
    s3_endpoint: str | None = None,
    program: Sequence[str],
) -> Result:
    """Run a job as `run` does, by the trainer that `program` is the command line of."""
    job = as_job(job)
    if wrong := places.problems(job):
        raise InvalidJob(wrong, where=job.name)
    job = _numbered(_reachable(places.absolute(job), s3_endpoint))
    if program is TRAINER:
        require_trainer()
    if progress is not None and not isinstance(progress, bool):
        return _run(job, checked(progress), program)
    out = console()
    if progress or (progress is None and (out.is_terminal or out.is_jupyter)):
        from retrainer.local.display import Display

        with Display(out) as display:
            return _run(job, display, program)
    return _run(job, Silent(), program)


def _reachable(job: RetrainJob, endpoint: str | None) -> RetrainJob:
    """Give the job the S3 server's URL for this machine, where the name that pods use is unknown."""
    endpoint = endpoint or os.environ.get(ENV_ENDPOINT)
    if not endpoint:
        return job
    storage = {**job.spec.storage.dump(), "endpoint": endpoint}
    try:
        checked = Storage.model_validate(storage)
    except ValidationError as error:
        raise UserError(f"{ENV_ENDPOINT}: {problems(error, Storage)[0]}") from error
    return job.model_copy(update={"spec": job.spec.model_copy(update={"storage": checked})})


def _numbered(job: RetrainJob) -> RetrainJob:
    """Give the job a uid, as the API server would."""
    metadata = job.metadata.model_copy(update={"uid": str(uuid.uuid4())})
    return job.model_copy(update={"metadata": metadata})


def _run(job: RetrainJob, watch: Watcher, program: Sequence[str]) -> Result:
    task = Task.of(job, TASK_TRAIN)
    report, _ = _carry_out(task, watch, program)
    return Result(report, task.run_url, job.spec.output, job.spec.storage)


def ask(
    job: RetrainJob,
    task: TaskName,
    *,
    decode: bool = False,
    s3_endpoint: str | None = None,
    program: Sequence[str] = TRAINER,
) -> Any:
    """Have the trainer look at a job without doing it, and return its answer.

    Args:
        job: to look at; its places may be paths.
        task: TASK_CHECK or TASK_PLAN.
        decode: of a check, decode every image.
        s3_endpoint: as `run`'s.
        program: the trainer's command line.

    Returns:
        The answer's JSON: an `Inspection` or a `Plan`.

    Raises:
        RetrainerError: as `run`.
    """
    if wrong := places.problems(job):
        raise InvalidJob(wrong, where=job.name)
    job = _numbered(_reachable(places.absolute(job), s3_endpoint))
    if program is TRAINER:
        require_trainer()
    return _carry_out(Task.of(job, task, decode=decode), Silent(), program)[1]


def _carry_out(task: Task, watch: Watcher, program: Sequence[str]) -> tuple[Report, Any]:
    """Have the trainer do a task to its end; returns its last report and its answer, if it gave one.

    Raises:
        RetrainerError: it did not succeed; the message says why.
    """
    # A folder of the run's own for temporary files: TensorFlow leaves some, a killed trainer more.
    with tempfile.TemporaryDirectory(prefix="retrainer-", ignore_cleanup_errors=True) as scratch:
        log = Path(scratch, "trainer.log")
        last = _Last(watch)
        child, events = _start(task, program, log)
        with events:
            try:
                _follow(events, last)
                code = child.wait()
            except KeyboardInterrupt as stop:
                number = stop.args[0] if stop.args else signal.SIGINT
                code = _stop(child, events, last)
                if code != 0:
                    raise _interrupted(last.latest, task.spec.cache_url, number) from stop
            except BaseException:
                # An error of the watcher: a closed pipe, or a mistake in a notebook's function.
                _stop(child, events, _Last(Silent()))
                raise
        if code == 0 and last.latest and last.latest.stage == Phase.SUCCEEDED:
            return last.latest, last.answer
        _fail(code, last.latest, log, task.run_url)


def _start(
    task: Task, program: Sequence[str], log: Path
) -> tuple[subprocess.Popen[bytes], IO[str]]:
    """Start the trainer; its temporary files go beside `log`."""
    read, write = os.pipe()
    environment = {
        **os.environ,
        ENV_TASK: task.to_json(),
        ENV_EVENTS: str(write),
        ENV_PORT: "0",
        "TMPDIR": str(log.parent),
    }
    try:
        # A process group of its own: Ctrl-C reaches this process only, which then asks the trainer
        # to stop as a kubelet would.
        with log.open("wb") as output:
            child = subprocess.Popen(
                program,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(write,),
                process_group=0,
            )
    except OSError as error:
        os.close(read)
        raise RetrainerError(f"Cannot start {program[0]}: {error.strerror}.") from error
    finally:
        os.close(write)
    return child, os.fdopen(read, encoding="utf-8", errors="replace")


class _Last:
    """Passes reports on and keeps the latest."""

    def __init__(self, watch: Watcher) -> None:
        self.watch = watch
        self.latest: Report | None = None
        self.answer: Any = None

    def report(self, report: Report) -> None:
        self.latest = report
        self.watch.report(report)


def _follow(events: Iterable[str], last: _Last) -> None:
    """Pass on events until the trainer has closed its end."""
    for line in events:
        try:
            event = json.loads(line)
            if "report" in event:
                last.report(Report.model_validate(event["report"]))
            elif "answer" in event:
                last.answer = event["answer"]
            elif "warning" in event:
                last.watch.warning(str(event["warning"]))
            elif "log" in event and not str(event["log"]).startswith(_REPEATED):
                last.watch.log(str(event["log"]))
        except (ValueError, TypeError, ValidationError):
            # A line that was cut off because the trainer died; its exit code says why.
            continue


def _stop(child: subprocess.Popen[bytes], events: Iterable[str], last: _Last) -> int:
    """Ask the trainer to stop, wait for what it saves; a second Ctrl-C ends it at once."""
    child.terminate()
    last.watch.log("Stopping once what was computed is saved (Ctrl-C again stops at once).")
    killer = threading.Timer(GRACE_SECONDS, child.kill)
    killer.start()
    try:
        _follow(events, last)
        return child.wait()
    except KeyboardInterrupt:
        child.kill()
        return child.wait()
    finally:
        killer.cancel()


def _interrupted(report: Report | None, cache: str, number: int) -> Interrupted:
    text = "Stopped"
    if report and report.progress.images_total:
        ready = (report.progress.images_cached or 0) + (report.progress.images_computed or 0)
        text += (
            f"; the cache {cache} holds at least {ready:,} of "
            f"{report.progress.images_total:,} bottlenecks"
        )
    error = Interrupted(f"{text}. Run it again to go on.")
    error.exit_code = 128 + number
    return error


def _fail(code: int, report: Report | None, log: Path, run_url: str) -> NoReturn:
    """Raise the error that the trainer's end means; it names the file in which the log is kept."""
    ended = report is not None and code > 0 and report.reason not in _RUNNING
    message = report.message if report and ended else ""
    reason = report.reason if report and message else None
    if code == EXIT_USER and message:
        kind = reasons.error_class(reason or "", UserError)
        raise kind(f"{message} {_advice(reason or '', run_url)}".rstrip(), reason=reason)
    if code == EXIT_SIGTERM:
        raise Interrupted(
            "The trainer was stopped from outside (SIGTERM). Run it again to go on.", reason=reason
        )
    if not message:
        message = _end_of_trainer(code, log)
    descriptor, kept = tempfile.mkstemp(prefix="retrainer-", suffix=".log")
    os.close(descriptor)
    log.replace(kept)
    kind = reasons.error_class(reason or "", JobFailed)
    raise kind(f"{message.rstrip('.')}. The trainer's log: {kept}", reason=reason)


# Of all other reasons, the message says what to do, or the advice is written for a cluster.
_ADVISED = (
    reasons.NO_IMAGES,
    reasons.TOO_FEW_LABELS,
    reasons.SETS_ON_TOP,
    reasons.MANIFEST_UNREADABLE,
    reasons.CORRECTIONS_UNREADABLE,
    reasons.LABEL_WITHOUT_TRAINING,
    reasons.TOO_MANY_REJECTED,
    reasons.WEIGHTS_NOT_FOUND,
    reasons.WEIGHTS_UNREADABLE,
)


def _advice(reason: str, run_url: str) -> str:
    """Write what to do about a mistake in the images or weights of a run on this machine."""
    advice = next((r.advice for r in _ADVISED if r.name == reason), "")
    advice = advice.replace("create the job again with", "run it again with")
    return advice.replace(f"{REJECTED} in the run", join(run_url, REJECTED))


def _end_of_trainer(code: int, log: Path) -> str:
    if code == -signal.SIGKILL:
        return "The trainer was killed (SIGKILL), most often because memory ran out"
    if code < 0:
        name = signal.Signals(-code).name
        return f"The trainer died ({name})"
    if code == 0:
        return "The trainer ended without a result"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        tail = file.read().decode(errors="replace").strip().splitlines()
    last = f": {tail[-1].strip()}" if tail else ""
    return f"The trainer ended with exit code {code}{last}"
