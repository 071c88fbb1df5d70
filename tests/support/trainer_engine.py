"""Photos, jobs and processes for tests of the trainer's engine."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from PIL import Image

from retrainer.api import Report, RetrainJobSpec, Task
from retrainer.api.architectures import architecture
from retrainer_trainer import bottlenecks
from retrainer_trainer.runtime.report import Reporter
from retrainer_trainer.runtime.stop import Stop
from retrainer_trainer.store.opening import open_store

ARCHITECTURE = "mobilenet_0.25_128"
WIDTH = architecture(ARCHITECTURE).bottleneck
UID = "0123456789abcdef"


def picture(seed: int, width: int = 64, height: int = 48) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A smooth picture, another for each seed: (height, width, 3) RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[return-value]


def encoded(image: np.ndarray[Any, Any], kind: str = "JPEG", **options: Any) -> bytes:
    """The picture as bytes of a file, written by Pillow."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, kind, **options)
    return out.getvalue()


def photo(seed: int, width: int = 64, height: int = 48) -> bytes:
    """A JPEG, another for each seed."""
    return encoded(picture(seed, width, height), quality=92)


def photos(root: Path, labels: dict[str, int], first: int = 0) -> Path:
    """A folder of different photos: `labels` gives how many each label has."""
    for label, count in labels.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / label / f"{i:04}.jpg").write_bytes(photo(first))
            first += 1
    return root


def spec(images: Path | str, output: Path | str, **fields: Any) -> RetrainJobSpec:
    """A job on the builtin weights."""
    values: dict[str, Any] = {"architecture": ARCHITECTURE, "weights": "builtin", **fields}
    return RetrainJobSpec(images=str(images), output=str(output), **values)


class Recorder(Reporter):
    """A reporter that keeps its log lines, warnings and reports."""

    def __init__(self, wanted: RetrainJobSpec, kind: str = "bottlenecks") -> None:
        task = Task.model_validate({"task": kind, "name": "t", "uid": UID, "spec": wanted})
        super().__init__(task, port=0, events=-1)
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)

    @property
    def warnings(self) -> list[str]:
        return self.report.warnings


def prepared(wanted: RetrainJobSpec, recorder: Recorder | None = None) -> bottlenecks.Bottlenecks:
    """Do the whole of the engine's part of a train task in this process."""
    run = open_store(wanted.output + "/run", wanted.storage, "spec.output")
    return bottlenecks.prepare(wanted, recorder or Recorder(wanted), Stop(), run)


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of `size` (as mount's option takes it) at the new folder `place`."""
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@dataclass(frozen=True)
class Ended:
    """A trainer process that ended."""

    code: int
    stdout: str
    stderr: str
    report: Report


def command(
    wanted: RetrainJobSpec,
    folder: Path,
    *,
    kind: Literal["bottlenecks", "train"] = "bottlenecks",
    shard: int = 0,
    env: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Arguments of `subprocess.Popen` that start a task; its report goes to `folder`."""
    task = Task(task=kind, name="t", uid=UID, shards=wanted.shards, spec=wanted)
    return {
        "args": [sys.executable, "-m", "retrainer_trainer"],
        "env": {
            **os.environ,
            "RETRAINER_TASK": task.to_json(),
            "JOB_COMPLETION_INDEX": str(shard),
            "RETRAINER_PORT": "0",
            "RETRAINER_TERMINATION_LOG": str(folder / "termination-log"),
            **(env or {}),
        },
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def ended(process: subprocess.Popen[str], folder: Path, seconds: float = 120) -> Ended:
    """Wait until a trainer process ends; return its outputs and report."""
    out, err = process.communicate(timeout=seconds)
    message = json.loads((folder / "termination-log").read_text())
    return Ended(process.returncode, out, err, Report.model_validate(message))


def run(wanted: RetrainJobSpec, folder: Path, **options: Any) -> Ended:
    """Do a task in a process of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    return ended(subprocess.Popen(**command(wanted, folder, **options)), folder)
