"""Retrain a network on this machine, twice: once with everything to do, once from the cache.

    python tools/demo.py                                     scikit-learn's handwritten digits
    python tools/demo.py --images photos --weights weights   one's own, with ImageNet weights

The digits need no download: their network comes with the package (`weights: builtin`). The second run
differs in the learning rate only, so it computes no bottleneck. `make demo` and `make demo-flowers`
call this.
"""

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.text import Text

from retrainer.api import ARCHITECTURES, RetrainJob, parse_job
from retrainer.api.names import API_VERSION, KIND
from retrainer.cli import run
from retrainer.errors import RetrainerError
from retrainer.local import process
from retrainer.local.display import Display
from retrainer.views.text import console, duration, near

STEPS = 500
RATES = (0.01, 0.1)
"""The learning rates: retrain.py's, and one ten times as large."""
BUILTIN = "mobilenet_0.25_128"
WIDTHS = {"2_5": "0.25", "5_0": "0.50", "7_5": "0.75", "1_0": "1.0"}
"""How Keras Applications writes a width in a file's name, and how an architecture does."""
PREFERRED = ("0.50", "0.75", "1.0", "0.25")
"""The codelab's width first, then the more accurate ones."""


def architecture_for(weights: str) -> str:
    """The architecture that a Keras weights file, or one in a folder of them, is for.

    Of several, the width that the codelab uses, at the largest size it was trained at.

    Raises:
        SystemExit: there is none.
    """
    place = Path(weights).expanduser()
    files = [f.name for f in place.iterdir()] if place.is_dir() else [place.name]
    ranks = {}
    for name in files:
        match = re.match(r"mobilenet_(\d_\d)_(\d+)_tf_no_top", name)
        if match and match[1] in WIDTHS:
            architecture = f"mobilenet_{WIDTHS[match[1]]}_{match[2]}"
            if architecture in ARCHITECTURES:
                width = PREFERRED.index(WIDTHS[match[1]])
                ranks[architecture] = (width, -int(match[2]))
    if not ranks:
        raise SystemExit(
            f"no weights in {weights}: files are named as Keras Applications names them, "
            "such as mobilenet_5_0_224_tf_no_top.h5 (or give --architecture)"
        )
    return min(ranks, key=lambda name: ranks[name])


def jobs(options: argparse.Namespace) -> list[RetrainJob]:
    """Two jobs that differ in the learning rate only."""
    if options.images:
        name, images = run.name_of(options.images), options.images
        weights = options.weights or "imagenet"
        architecture = options.architecture or (
            "mobilenet_0.50_224" if weights == "imagenet" else architecture_for(weights)
        )
    else:
        name, images = "digits", str(options.output / "digits")
        weights, architecture = "builtin", BUILTIN
    spec = {
        "architecture": architecture,
        "images": images,
        "output": str(options.output / "out"),
        "weights": weights,
    }
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
    trainings = [{"steps": STEPS, "learningRate": rate} for rate in RATES]
    return [parse_job({**head, "spec": {**spec, "training": training}}) for training in trainings]


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", default="", help="folder of images, one folder per label")
    parser.add_argument("--weights", default="", help="Keras weights file, or folder of them")
    parser.add_argument("--architecture", default="", help="chosen by the weights if not given")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="where everything goes")
    options = parser.parse_args()
    if options.weights and not options.images:
        parser.error(
            "--weights goes with --images, as in: make demo-flowers IMAGES=photos WEIGHTS=w"
        )
    try:
        show(options)
    except RetrainerError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def show(options: argparse.Namespace) -> None:
    """Run both jobs; print what each gave and what to look at next."""
    out = console()

    def say(text: str, style: str = "bold") -> None:
        out.print(Text(text, style=style), soft_wrap=True)

    if not options.images:
        digits = [sys.executable, str(Path(__file__).with_name("digits.py"))]
        subprocess.run([*digits, str(options.output / "digits")], check=True)
    results = []
    for number, job in enumerate(jobs(options), 1):
        training, what = (
            job.spec.training,
            f"{job.spec.architecture}, {job.spec.training.steps} steps",
        )
        say(f"\nRun {number} of 2: {what}, learning rate {training.learning_rate:g}")
        begun = time.monotonic()
        with Display(out) as display:
            result = process.run(job, progress=display)
        results.append((training.learning_rate, result, time.monotonic() - begun))
        say(str(result), "bold green")

    say("\nBoth runs")
    rows = []
    for rate, result, seconds in results:
        counts = result.report.progress
        rows.append(
            f"  learning rate {rate:g}\n    {result}\n"
            f"    {counts.images_cached or 0:,} bottlenecks from the cache, "
            f"{counts.images_computed or 0:,} computed, {duration(seconds)}"
        )
    say("\n".join(rows), "")
    last = results[-1][1]
    command = near(str(Path(sys.executable).with_name("retrainer")))
    output = near(last.output)
    say("\nLook at", "bold")
    say(f"  the page      {near(last.page)}", "")
    say(f"  the curves    {command} tensorboard {output}", "")
    say(f"  a prediction  {command} predict {output} {an_image(jobs(options)[0].spec.images)}", "")


def an_image(images: str) -> str:
    """The path of one of the images, to predict."""
    files = (f for f in sorted(Path(images).expanduser().glob("*/[!.]*")) if f.is_file())
    return str(next(files, "IMAGE"))


if __name__ == "__main__":
    sys.exit(main())
