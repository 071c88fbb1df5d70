"""How fast bottlenecks are computed, found again, and how much memory a million images take.

    python tests/bench/bottlenecks.py [--before CHECKOUT] [ROW ...]

With --before, row local runs another checkout, such as a git worktree of an earlier commit, in turn.

Rows: local s3 large second million memory; all if none is named. Rates are images/s of MobileNet 0.50
at 224 pixels with the weights of 160, on the flower photos; rivals run in turn with Retrainer, each in
a process of its own, and medians of three are compared. Prints 1 if a ratio is missed.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support.devcluster_s3 import S3Server  # noqa: E402
from tests.support.trainer_s3 import bucket, upload  # noqa: E402

from retrainer.api import architecture  # noqa: E402
from retrainer_trainer.backbone.layers import folded, read_layers  # noqa: E402
from retrainer_trainer.backbone.tflite import backbone_tflite  # noqa: E402
from retrainer_trainer.backbone.weights import Weights  # noqa: E402

DATA = Path(os.environ.get("RETRAINER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
FLOWERS = DATA / "flower_photos"
WEIGHTS = DATA / "weights" / "mobilenet_5_0_160_tf_no_top.weights.h5"
RIVALS = Path(__file__).parent / "rivals"
SIZE, ALPHA = 224, 0.5
REPEATS = 3
MILLION = 1_000_000
LARGE = 48
SLOWEST = 500  # photos for retrain.py's way, which needs no more to show its rate

missed: list[str] = []
before: list[Path] = []


def measure(*arguments: str, checkout: Path = REPOSITORY) -> dict[str, Any]:
    """A measurement of tests/support/trainer_bench.py of this checkout or another."""
    command = [sys.executable, "-m", "tests.support.trainer_bench", *arguments]
    paths = os.pathsep.join(str(checkout / each) for each in ("sdk", "trainer"))
    done = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def rival(name: str, *arguments: object, **env: str) -> float:
    """Images/s of one of the rivals."""
    command = [sys.executable, str(RIVALS / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.splitlines()[-1])


def spec(images: Path | str, output: Path | str, **fields: Any) -> str:
    """A job as JSON."""
    return json.dumps(
        {
            "architecture": f"mobilenet_0.50_{SIZE}",
            "images": str(images),
            "output": str(output),
            "weights": str(WEIGHTS),
            **fields,
        }
    )


def computed(job: str, output: Path, checkout: Path = REPOSITORY) -> dict[str, Any]:
    """Retrainer on an empty cache, the backbone kept."""
    for folder in (output / ".bottlenecks").glob("*/segments"):
        shutil.rmtree(folder)
    return measure("fill", job, checkout=checkout)


def show(
    what: str, got: float, unit: str, least: float | None = None, most: float | None = None
) -> None:
    """One line of the table."""
    bound = f" (at least {least:g})" if least is not None else ""
    bound += f" (at most {most:g})" if most is not None else ""
    bad = (least is not None and got < least) or (most is not None and got > most)
    print(f"{'MISSED ' if bad else ''}{what}: {got:.2f} {unit}{bound}", flush=True)
    if bad:
        missed.append(what)


def rates(runs: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Images/s of the first, and how many times the others' it is: medians over rounds in which all
    run in turn, so that other work on the machine slows them alike."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            measured[name].append(run())
    for name, values in measured.items():
        print(f"  {name}: {', '.join(f'{v:.0f}' for v in values)} images/s", flush=True)
    (first, ours), *others = measured.items()
    times = {
        name: statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        for name, theirs in others
    }
    return {first: statistics.median(ours), **times}


def cpu_seconds(server: S3Server) -> float:
    """What the server's process has used so far, found by the port it was given."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if f"127.0.0.1:{server.port}".encode() in arguments:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            continue  # it ended meanwhile
    raise RuntimeError("the S3 server's process is not found")


# --- rows ---
def local(work: Path) -> None:
    """Against the three rivals, from a local folder."""
    output = work / "local"
    job = spec(FLOWERS, output)
    measure("fill", job)
    backbone = work / "backbone.tflite"
    chosen = architecture("mobilenet_0.50_224")
    weights = Weights.of(str(WEIGHTS), WEIGHTS.read_bytes())
    backbone.write_bytes(backbone_tflite(chosen, folded(read_layers(chosen, weights))))
    earlier: dict[str, Callable[[], float]] = {}
    if before:
        old_output = work / "before"
        old_job = spec(FLOWERS, old_output)
        measure("fill", old_job, checkout=before[0])
        earlier["before"] = lambda: float(computed(old_job, old_output, before[0])["rate"])
    got = rates(
        {
            "Retrainer": lambda: float(computed(job, output)["rate"]),
            **earlier,
            "bare loop": lambda: rival("bare_loop", FLOWERS, backbone, SIZE),
            "Keras predict": lambda: rival("keras_predict", FLOWERS, WEIGHTS, SIZE, ALPHA),
            "retrain.py's way": lambda: rival("retrain_py", FLOWERS, WEIGHTS, SIZE, ALPHA, SLOWEST),
            "retrain.py's way with oneDNN": lambda: rival(
                "retrain_py", FLOWERS, WEIGHTS, SIZE, ALPHA, SLOWEST, TF_ENABLE_ONEDNN_OPTS="1"
            ),
        }
    )
    show("bottlenecks, 1,498 photos, local folder", got["Retrainer"], "images/s")
    show("against retrain.py's way", got["retrain.py's way"], "times", least=4)
    show("  the same with oneDNN", got["retrain.py's way with oneDNN"], "times")
    show("against Keras", got["Keras predict"], "times", least=2)
    if before:
        show("now against before", got["before"], "times", least=0.95)
    show("against the bare loop", got["bare loop"], "times", least=0.85)


def s3(work: Path) -> None:
    """From a real S3 server on this machine, images and cache both."""
    output = work / "local-for-s3"
    job = spec(FLOWERS, output)
    measure("fill", job)
    with S3Server(work / "s3") as server:
        os.environ.update(server.environment())
        client = bucket(server, "photos")
        upload(client, "photos", "flowers", FLOWERS)
        remote = spec(
            "s3://photos/flowers", "s3://photos/out", storage={"endpoint": server.endpoint}
        )
        measure("fill", remote)
        shares: list[float] = []

        def from_s3() -> float:
            for entry in client.list_objects_v2(Bucket="photos", Prefix="out/").get("Contents", ()):
                if "/segments/" in entry["Key"]:
                    client.delete_object(Bucket="photos", Key=entry["Key"])
            before = cpu_seconds(server)
            got = measure("fill", remote)
            used = cpu_seconds(server) - before
            shares.append(used / (used + float(got["cpu"])))
            return float(got["rate"])

        got = rates({"S3": from_s3, "local": lambda: float(computed(job, output)["rate"])})
    print(
        f"  the S3 server took {100 * statistics.median(shares):.0f}% of the CPU time", flush=True
    )
    show("from S3 against a local folder", got["local"], "times", least=0.7)


def large(work: Path) -> None:
    """Photos of 12 megapixels, made from the flowers."""
    folder = work / "large-photos"
    generator = np.random.default_rng(0)
    for i, path in enumerate(sorted(FLOWERS.glob("*/*.jpg"))[:: 1498 // LARGE][:LARGE]):
        small = cv2.imread(str(path))
        assert small is not None
        image = cv2.resize(small, (4000, 3000), interpolation=cv2.INTER_CUBIC)
        grain = generator.integers(-6, 7, image.shape, dtype=np.int16)
        image = np.clip(image + grain, 0, 255).astype(np.uint8)
        target = folder / "ab"[i % 2] / f"{i:03}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    job = spec(folder, work / "large")
    measure("fill", job)
    got = rates(
        {
            "Retrainer": lambda: float(computed(job, work / "large")["rate"]),
            "Keras predict": lambda: rival("keras_predict", folder, WEIGHTS, SIZE, ALPHA),
        }
    )
    show("12-megapixel photos", got["Retrainer"], "images/s")
    show(
        "12-megapixel photos against Keras",
        got["Keras predict"],
        "times",
        least=2,
    )


def second(work: Path) -> None:
    """4,000 photos that are all cached; bytes after a JPEG's end make further ones of the same."""
    folder = work / "four-thousand"
    flowers = sorted(FLOWERS.glob("*/*.jpg"))
    for i in range(4000):
        path = flowers[i % len(flowers)]
        target = folder / path.parent.name / f"{i:04}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes() + i.to_bytes(4, "big"))
    job = spec(folder, work / "second")
    measure("fill", job)
    runs = [measure("ready", job) for _ in range(REPEATS)]
    show("second run, bottlenecks computed", max(r["computed"] for r in runs), "", most=0)
    seconds = statistics.median(r["seconds"] for r in runs)
    show("second run, 4,000 images ready", seconds, "s", most=1)


def _million(work: Path) -> Path:
    folder = work / "million"
    if not folder.exists():
        measure("make_million", str(folder), str(MILLION))
    return folder


def million(work: Path) -> None:
    """4,000 wanted out of a cache of a million, in a new process each time."""
    folder = str(_million(work))
    for how in ("scattered", "together"):
        runs = [measure("wanted", folder, str(MILLION), how) for _ in range(REPEATS)]
        seconds = statistics.median(float(r["seconds"]) for r in runs)
        show(f"4,000 of {MILLION:,} in the cache, {how}", seconds, "s", most=3)


def memory(work: Path) -> None:
    """Peak memory of a million listed images, all cached."""
    folder = str(_million(work))
    job = spec("/made-up", work / "memory")
    gib = 1024**3
    measure("catalogued", job, folder, "10000", "bottlenecks")  # converts the backbone
    small = measure("catalogued", job, folder, "100000", "bottlenecks")
    many = measure("catalogued", job, folder, str(MILLION), "bottlenecks")
    whole = measure("catalogued", job, folder, str(MILLION), "train")
    print(
        f"  listing took {many['listing']:.1f} s, until loaded {whole['seconds']:.1f} s", flush=True
    )
    show("bottlenecks task, 100,000 images", small["peak"] / gib, "GiB")
    show(f"bottlenecks task, {MILLION:,} images", many["peak"] / gib, "GiB", most=1.2)
    limit = (1.15 * whole["matrix"] + 1.2 * gib) / gib
    show(
        f"train task's matrix of {MILLION:,} x 512",
        whole["peak"] / gib,
        "GiB",
        most=round(limit, 2),
    )


def main() -> int:
    """Print the table; 1 if something is missed."""
    rows = {row.__name__: row for row in (local, s3, large, second, million, memory)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=lambda path: before.append(Path(path).resolve()))
    parser.add_argument("rows", nargs="*", help="all if none is named")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="retrainer-bench-") as folder:
        for name in arguments.rows or rows:
            rows[name](Path(folder))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
