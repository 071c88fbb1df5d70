"""Where the time of `retrainer run` goes, from process start to result, cold and warm.

    python tests/bench/start.py [--before CHECKOUT] [--repeats 3]

The flower photos, mobilenet_0.50_160, 500 steps, default exports. With --before, another checkout is
run in turn with this one, by the same Python, and the ratios of the medians are printed.
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

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.support import machine  # noqa: E402 - found beside the repository's packages

DATA = Path(os.environ.get("RETRAINER_TEST_DATA") or REPOSITORY.parent / "shared" / "data")

# Started at the time in argv[1]: prints what the trainer was at, and seconds from the start until then.
PROGRAM = """
import json, sys, time
start, images, output, weights, cache = float(sys.argv[1]), *sys.argv[2:]
import retrainer

class Watch:
    def __init__(self):
        self.marks = {}
    def report(self, report):
        self.marks.setdefault(report.message.split(" ")[0].rstrip("."), time.time() - start)
    def log(self, text):
        pass
    warning = log

watch = Watch()
spec = dict(images=images, output=output, weights=weights, cache=cache,
            architecture="mobilenet_0.50_160", training={"steps": 500})
retrainer.run({"apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob",
              "metadata": {"name": "start"}, "spec": spec}, progress=watch)
print(json.dumps({**watch.marks, "end": time.time() - start}))
"""


def measure(checkout: Path, cache: Path) -> dict[str, float]:
    """Seconds from the start at which each stage was first reported, and at the end."""
    paths = os.pathsep.join(str(checkout / each) for each in ("sdk", "trainer"))
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    weights = DATA / "weights" / "mobilenet_5_0_160_tf_no_top.weights.h5"
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-c", PROGRAM, str(time.time())]
        command += [str(DATA / "flower_photos"), output, str(weights), str(cache)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    marks: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return marks


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout to run in turn with this one")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    checkouts = {"now": REPOSITORY}
    if arguments.before:
        checkouts["before"] = arguments.before
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(arguments.repeats):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as cache:
                for kind in ("cold", "warm"):
                    runs.setdefault((name, kind), []).append(measure(checkout, Path(cache)))
    print(f"{machine.described()}, {os.cpu_count()} cores")
    ends = {}
    for (name, kind), each in runs.items():
        print(f"\n{name}, {kind}: seconds from process start until it was first reported")
        for mark in each[0]:
            times = [marks[mark] for marks in each if mark in marks]
            print(f"  {mark:<20} {statistics.median(times):7.2f}")
        ends[name, kind] = statistics.median(marks["end"] for marks in each)
    if arguments.before:
        for kind in ("cold", "warm"):
            print(f"{kind}: before / now {ends['before', kind] / ends['now', kind]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
