"""`python -m retrainer_trainer`: does the task in RETRAINER_TASK, and says how it went.

Exit codes: 0 done; 64 the spec or the images are wrong, do not try again; 143 asked to stop, what was
computed is in the cache; 1 anything else, try again.
"""

import errno
import importlib.util
import os
import sys
import tempfile
import traceback
from collections.abc import Callable

from retrainer.inference.silence import quiet_environment

quiet_environment()

from pydantic import ValidationError  # noqa: E402 - TensorFlow reads its settings when it is imported

from retrainer.api import Phase, RetrainJobSpec, Task, names, reasons  # noqa: E402
from retrainer.errors import Interrupted, RetrainerError  # noqa: E402
from retrainer_trainer.runtime.clock import Clock, process_seconds  # noqa: E402
from retrainer_trainer.runtime.report import Reporter  # noqa: E402
from retrainer_trainer.runtime.stop import Stop  # noqa: E402


def main() -> int:
    """Do the task; returns the exit code."""
    stop = Stop()
    stop.install(int(os.environ.get(names.ENV_EVENTS, "-1")))
    try:
        task = Task.model_validate_json(os.environ.get(names.ENV_TASK, ""))
        shard = int(os.environ.get(names.ENV_SHARD, "0"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        print(
            f"{names.ENV_TASK} is not a task: {where + ': ' if where else ''}{first['msg']}",
            file=sys.stderr,
        )
        return names.EXIT_USER
    except ValueError:
        print(f"{names.ENV_SHARD} is not a number: {os.environ[names.ENV_SHARD]}", file=sys.stderr)
        return names.EXIT_USER
    reporter = Reporter(task, shard if task.task == names.TASK_BOTTLENECKS else 0)
    reporter.clock = Clock(process_seconds())
    try:
        return _do(task, reporter, stop)
    finally:
        reporter.finish()
        reporter.close()


def check_tensorflow(
    spec: RetrainJobSpec, find: Callable[[str], object] = importlib.util.find_spec
) -> None:
    """Refuse a job that needs TensorFlow where it is not installed, before anything is computed.

    Raises:
        UserError: it names the field and says what to install.
    """
    if (field := spec.tensorflow_field) and find("tensorflow") is None:
        raise reasons.TENSORFLOW_MISSING.error(field=field)


def _do(task: Task, reporter: Reporter, stop: Stop) -> int:
    try:
        check_tensorflow(task.spec)
        if task.task == names.TASK_BOTTLENECKS:
            from retrainer_trainer import bottlenecks

            bottlenecks.run(task, reporter.report.shard, reporter, stop)
        elif task.task in (names.TASK_CHECK, names.TASK_PLAN):
            from retrainer_trainer import preview

            preview.run(task, reporter, stop)
        else:
            from retrainer_trainer import train

            train.run(task, reporter, stop)
    except RetrainerError as error:
        reporter.update(reason=error.reason, message=str(error))
        if error.exit_code == names.EXIT_USER:
            reporter.update(stage=Phase.FAILED)
        reporter.log(str(error) if isinstance(error, Interrupted) else f"Error: {error}")
        return error.exit_code
    except MemoryError:
        text = "Out of memory; give the pod more in spec.pod.resources.limits.memory."
        return _failed(reporter, reasons.INTERNAL_ERROR.name, text, f"Error: {text}")
    except Exception as error:  # the report must say what happened
        # A store's errors are no OSError: what is full is the place of temporary files.
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            text = reasons.DISK_FULL(url=tempfile.gettempdir())
            return _failed(reporter, reasons.DISK_FULL.name, text, f"Error: {text}")
        text = f"{type(error).__name__}: {error}"
        return _failed(reporter, reasons.INTERNAL_ERROR.name, text, traceback.format_exc())
    return 0


def _failed(reporter: Reporter, reason: str, text: str, line: str) -> int:
    reporter.update(reason=reason, message=text)
    reporter.log(line)
    return 1


class _NoPandas:
    """Says that pandas is not installed: pyarrow would import it, in 0.35 s, to look at each list."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)


if __name__ == "__main__":
    sys.meta_path.insert(0, _NoPandas())
    # Threads may still wait for a store or compute: nothing of theirs is needed any more.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
