"""Benchmark of networks of one's own: our loop against a bare one, and the time to the first bottleneck.

python tests/bench/backbones.py [FOLDER]     a folder with .onnx and .tflite files of networks;
                                             efficientnet_lite0 of the test data if not given
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support.trainer_engine import Recorder  # noqa: E402

from retrainer.api import RetrainJobSpec  # noqa: E402
from retrainer_trainer import bottlenecks  # noqa: E402
from retrainer_trainer.backbone.compute import OpenJob  # noqa: E402
from retrainer_trainer.runtime.cores import cores  # noqa: E402
from retrainer_trainer.runtime.stop import Stop  # noqa: E402

DATA = Path(os.environ.get("RETRAINER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
PHOTOS = 150
ROUNDS = 3


def opened(url: Path, images: Path, output: Path) -> OpenJob:
    """Open a job on the network, with an empty cache."""
    spec = RetrainJobSpec.model_validate(
        {"backbone": {"url": str(url)}, "images": str(images), "output": str(output)}
    )
    return bottlenecks.open_job(spec, Recorder(spec), Stop())


def ours(job: OpenJob) -> None:
    """Compute all bottlenecks as a run does."""
    bottlenecks.compute_missing(job, Recorder(job.spec), Stop())


def bare(job: OpenJob) -> None:
    """Decode and run on as many threads, and nothing else."""
    paths = [f"{job.spec.images}/{path}" for path in job.catalog.paths]

    def share(start: int) -> None:
        engine = job.backbone.start()
        for path in paths[start :: cores()]:
            body = Path(path).read_bytes()
            engine([job.backbone.pixels(body, job.backbone.size)])

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(share, range(cores())))


def seconds(work: Callable[[], object]) -> float:
    """Measure how long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def first(url: Path, images: Path, output: Path) -> float:
    """Measure the time from the network's file to the first bottleneck."""

    def work() -> None:
        backbone = opened(url, images, output).backbone
        body = min(images.rglob("*.jpg")).read_bytes()
        backbone.start()([backbone.pixels(body, backbone.size)])

    return seconds(work)


def main() -> None:
    """Print the two figures of each file."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA / "backbones" / "efficientnet_lite0"
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        for label in sorted(path for path in (DATA / "flower_photos").iterdir() if path.is_dir()):
            (images / label.name).mkdir(parents=True)
            for photo in sorted(label.glob("*.jpg"))[: PHOTOS // 5]:
                (images / label.name / photo.name).symlink_to(photo)
        for file in sorted((*folder.glob("*.onnx"), *folder.glob("*.tflite"))):
            times = [first(file, images, Path(name) / f"first{i}") for i in range(ROUNDS)]
            ratios = []
            for i in range(ROUNDS):  # in turn, so that other work on the machine slows both alike
                alone = seconds(partial(bare, opened(file, images, Path(name) / f"b{i}")))
                here = seconds(partial(ours, opened(file, images, Path(name) / f"o{i}")))
                ratios.append(alone / here)
            size = file.stat().st_size / 1e6
            print(
                f"{file.name} ({size:.0f} MB): our loop at {statistics.median(ratios):.2f} of the bare "
                f"one (at least 0.9), first bottleneck after {statistics.median(times):.2f} s "
                "(at most 1)",
                flush=True,
            )


if __name__ == "__main__":
    main()
