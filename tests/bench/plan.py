"""How far `retrainer plan` is from the time that the run then takes.

    python tests/bench/plan.py [IMAGES WEIGHTS]     a folder per label, and ImageNet weights

One run on all images teaches the plan the rates of this machine. Then, for a quarter, a half and all of
the images: cold (one byte more in each file, so that the cache has none) and warm (the same once more).
It returns 1 if a plan is further off than is allowed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import machine

MOST = 0.25
"""Share of the run's time by which a plan may be wrong."""
SHARES = (4, 2, 1)
COMMAND = str(Path(sys.executable).with_name("retrainer"))


def copy(images: Path, place: Path, every: int, mark: bytes) -> None:
    """Copy each `every`th image of each label, with `mark` at its end."""
    for label in sorted(path for path in images.iterdir() if path.is_dir()):
        (place / label.name).mkdir(parents=True)
        for image in sorted(label.iterdir())[::every]:
            (place / label.name / image.name).write_bytes(image.read_bytes() + mark)


def options(place: Path, weights: str, cache: Path) -> list[str]:
    """The options of a run and of its plan."""
    return [
        str(place), "--weights", weights, "--cache", str(cache), "--architecture",
        "mobilenet_0.50_160", "--steps", "500",
    ]  # fmt: skip


def planned(arguments: list[str]) -> float:
    """Seconds that the plan expects."""
    command = [COMMAND, "plan", *arguments, "-o", "json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds: float = json.loads(done.stdout)["seconds"]
    return seconds


def taken(arguments: list[str], output: Path) -> float:
    """Seconds that the run takes."""
    started = time.perf_counter()
    command = [COMMAND, "run", *arguments, "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> int:
    """Print a line per plan; the exit code."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    data = Path(os.environ.get("RETRAINER_TEST_DATA") or beside)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, nargs="?", default=data / "flower_photos")
    parser.add_argument("weights", nargs="?", default=str(data / "weights"))
    asked = parser.parse_args()
    print(machine.described())
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cache = folder / "cache"
        taken(options(asked.images, asked.weights, cache), folder / "out")
        for every in SHARES:
            place = folder / f"every-{every}"
            copy(asked.images, place, every, b"\0" * every)
            for kind in ("cold", "warm"):
                arguments = options(place, asked.weights, cache)
                expected = planned(arguments)
                seconds = taken(arguments, folder / "out")
                wrong = expected / seconds - 1
                worst = max(worst, abs(wrong))
                print(
                    f"1/{every} of the images, {kind}: planned {expected:.1f} s, took "
                    f"{seconds:.1f} s, {wrong:+.0%}",
                    flush=True,
                )
    print(f"furthest off {worst:.0%}, at most {MOST:.0%} is allowed")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
