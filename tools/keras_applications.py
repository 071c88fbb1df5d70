"""Adds networks of Keras Applications with random weights, and compares each with Keras' own.

    python tools/keras_applications.py              # every network that the installed Keras has
    python tools/keras_applications.py MobileNetV2  # these

Each at the smallest input that it takes, in a process of its own, since some take gigabytes. Prints for
each the largest difference of a bottleneck's numbers as a share of the largest number; exits with 1 if
one is above `MOST`. A small network takes 20 s, one of the large ones minutes and gigabytes, so this is
no test of the suite: tests/trainer/test_keras_applications.py does it for MobileNet.
"""

import json
import subprocess
import sys
import time

import numpy as np

from retrainer.api import BackboneSource, Layout
from retrainer.inference.preprocessing import read_preprocessing
from retrainer.inference.silence import quiet
from retrainer_trainer.backbone import keras_applications as applications

MOST = 1e-3
IMAGES = 2


def difference(name: str) -> float:
    """How far a network that was added is from Keras' own, as a share of its largest number."""
    import importlib

    import keras
    from ai_edge_litert.interpreter import Interpreter

    keras.utils.set_random_seed(1)
    size = applications.smallest_size(name)
    network = applications.build(name, size, applications.NONE)
    pixels = np.random.default_rng(1).integers(0, 256, (IMAGES, size, size, 3), dtype=np.uint8)
    module = importlib.import_module(getattr(keras.applications, name).__module__)
    wanted = np.asarray(network(module.preprocess_input(pixels.astype(np.float32)), training=False))

    config = applications.preprocessor_config(name, size)
    prepared = read_preprocessing(
        json.loads(json.dumps(config)), BackboneSource(url=name), size=size, layout=Layout.NHWC,
        file=name,
    )  # fmt: skip
    with quiet():
        interpreter = Interpreter(model_content=applications.convert(network, size))
        interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    bottlenecks = []
    for numbers in prepared.numbers(pixels):
        interpreter.set_tensor(source["index"], numbers[None])
        interpreter.invoke()
        bottlenecks.append(interpreter.get_tensor(result["index"])[0])
    if not np.ptp(wanted):
        raise AssertionError(f"{name} gives the same number everywhere: nothing is compared.")
    return float(np.abs(np.stack(bottlenecks) - wanted).max() / np.abs(wanted).max())


def main(names: list[str]) -> int:
    """Compare these networks, or all; returns the exit code."""
    if len(names) == 1:
        print(f"{difference(names[0]):.1e}")
        return 0
    wrong = 0
    for name in names or applications.names():
        started = time.monotonic()
        child = subprocess.run(
            [sys.executable, __file__, name], capture_output=True, text=True, check=False
        )
        lines = (child.stdout if child.returncode == 0 else child.stderr).strip().splitlines()
        line = lines[-1] if lines else f"ended with {child.returncode}"
        good = child.returncode == 0 and float(line) <= MOST
        wrong += not good
        print(
            f"{name:20} {line}  {time.monotonic() - started:.0f} s{'' if good else '  WRONG'}",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
