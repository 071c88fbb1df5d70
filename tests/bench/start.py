"""Where the time of `retrainer run` goes, from process start to result, cold and warm.

    python tests/bench/start.py [--before CHECKOUT] [--repeats 5] [--kinds cold,warm,sweep]

The flower photos, mobilenet_0.50_160, 500 steps, default exports. "sweep" is a warm job of 4,000 steps
that chooses among 10 learning rates with 10 L2 strengths. With --before, another checkout, such as a git
worktree of an earlier commit, is run in turn with this one, by the same Python, and the ratios of the
medians are printed: of each kind, of the time to the first bottleneck, and of 100 of its warm runs to
our one sweep.

Beside wall times stand those of the processors, of all threads, which other programs on the machine
lengthen less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support import machine  # noqa: E402 - found beside the repository's packages

DATA = Path(os.environ.get("RETRAINER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")

SWEEP = {
    "steps": 4000,
    "sweep": {
        "learningRate": [0.001, 0.0017, 0.0028, 0.0046, 0.0077, 0.013, 0.022, 0.036, 0.06, 0.1],
        "l2": [0, 1e-5, 3.2e-5, 1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 0.1],
    },
}
FIRST = "first bottleneck"
CPU = "processor time"

# Started at the time in argv[1]: prints what the trainer was at, and seconds from the start until then.
PROGRAM = """
import json, resource, sys, time
start, images, output, weights, cache = float(sys.argv[1]), *sys.argv[2:6]
import retrainer

class Watch:
    def __init__(self):
        self.marks = {}
    def report(self, report):
        self.marks.setdefault(report.message.split(" ")[0].rstrip("."), time.time() - start)
        if report.progress.images_computed:
            self.marks.setdefault("first bottleneck", time.time() - start)
    def log(self, text):
        pass
    warning = log

watch = Watch()
spec = dict(images=images, output=output, weights=weights, cache=cache,
            architecture="mobilenet_0.50_160", training=json.loads(sys.argv[6]))
retrainer.run({"apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob",
              "metadata": {"name": "start"}, "spec": spec}, progress=watch)
watch.marks["end"] = time.time() - start
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
watch.marks["processor time"] = sum(each.ru_utime + each.ru_stime for each in used)
print(json.dumps(watch.marks))
"""


def measure(checkout: Path, cache: Path, training: dict[str, Any]) -> dict[str, float]:
    """Seconds from the start at which each stage was first reported, and at the end."""
    paths = os.pathsep.join(str(checkout / each) for each in ("sdk", "trainer"))
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    weights = DATA / "weights" / "mobilenet_5_0_160_tf_no_top.weights.h5"
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", PROGRAM, str(time.time())]
        command += [str(DATA / "flower_photos"), output, str(weights), str(cache)]
        command += [json.dumps(training)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    marks: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return marks


def _ratio(medians: dict[tuple[str, str, str], float], kind: str, mark: str = CPU) -> str:
    return f"{medians['before', kind, mark] / medians['now', kind, mark]:.2f}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to run in turn with this one")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", default="cold,warm,sweep", help="of cold, warm and sweep")
    arguments = parser.parse_args()
    checkouts = {"now": REPOSITORY}
    if arguments.before:
        checkouts["before"] = arguments.before
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    kinds = arguments.kinds.split(",")
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.repeats):
            for name, checkout in checkouts.items():
                cache = Path(folder) / name / (str(number) if "cold" in kinds else "")
                for kind in ("cold", "warm", "sweep"):
                    if (kind == "sweep" and name == "before") or (
                        kind not in kinds and (kind != "cold" or cache.exists())
                    ):
                        continue  # an earlier commit may know no sweeps; a warm cache is filled once
                    marks = measure(checkout, cache, SWEEP if kind == "sweep" else {"steps": 500})
                    if kind in kinds:
                        runs.setdefault((name, kind), []).append(marks)
    print(f"{machine.described()}, {os.cpu_count()} cores")
    medians = {}
    for (name, kind), each in runs.items():
        print(f"\n{name}, {kind}: seconds from process start until it was first reported")
        for mark in each[0]:
            seconds = statistics.median([marks[mark] for marks in each if mark in marks])
            medians[name, kind, mark] = seconds
            print(f"  {mark:<20} {seconds:7.2f}")
    if arguments.before:
        print("\nbefore / now, of wall time and of the processors' time")
        for kind in [kind for kind in kinds if kind != "sweep"]:
            print(f"  {kind} run: {_ratio(medians, kind, 'end')}, {_ratio(medians, kind)}")
        if "cold" in kinds:
            print(f"  first bottleneck, empty cache: {_ratio(medians, 'cold', FIRST)}")
        if {"warm", "sweep"} <= set(kinds):
            wall, processors = (
                100 * medians["before", "warm", mark] / medians["now", "sweep", mark]
                for mark in ("end", CPU)
            )
            print(f"  100 warm runs to one sweep of 100: {wall:.0f}, {processors:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
