"""`make demo` and `make demo-flowers`: what they print is true, and what they leave is whole."""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).resolve().parents[2] / "tools" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), "--output", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def accuracies(text: str) -> list[float]:
    """The test accuracies in the lines under `Both runs`, in percent."""
    both = text.partition("\nBoth runs\n")[2]
    return [float(percent) for percent in re.findall(r"test accuracy (\d+\.\d)%", both)]


@pytest.mark.slow
def test_the_demo_learns_the_digits_and_its_second_run_takes_all_from_the_cache(
    tmp_path: Path,
) -> None:
    done = run_demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = accuracies(done.stdout)
    assert min(first, second) >= 90
    assert "0 bottlenecks from the cache, 1,797 computed" in done.stdout
    assert "1,797 bottlenecks from the cache, 0 computed" in done.stdout
    assert "WARNING" not in done.stdout  # TensorFlow's way to begin
    page = Path(re.findall(r"the page +(.*)", done.stdout)[0])
    assert page.is_file()
    result = json.loads((page.parent / "result.json").read_text())
    assert f"{result['metrics']['testAccuracy']:.1%}" == f"{second:.1f}%"
    predict = re.findall(r"a prediction +(.*)", done.stdout)[0].split()
    output = subprocess.run(predict, capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[1].split()[:2] == [predict[-1], "0"]


@pytest.mark.parametrize(
    ("files", "architecture"),
    [
        (["mobilenet_2_5_128_tf_no_top.weights.h5"], "mobilenet_0.25_128"),
        (["mobilenet_1_0_224_tf_no_top.h5", "mobilenet_5_0_160_tf_no_top.weights.h5",
          "mobilenet_2_5_224_tf_no_top.h5"], "mobilenet_0.50_160"),
        (["mobilenet_5_0_160_tf_no_top.h5", "mobilenet_5_0_224_tf_no_top.h5", "README.md"],
         "mobilenet_0.50_224"),
    ],
)  # fmt: skip
def test_the_architecture_is_chosen_by_the_weights_that_are_there(
    demo: ModuleType, tmp_path: Path, files: list[str], architecture: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    assert demo.architecture_for(str(tmp_path)) == architecture
    assert demo.architecture_for(str(tmp_path / files[0])).startswith("mobilenet_")


def test_a_folder_without_weights_is_told(demo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match=r"no weights in .* named as Keras Applications names them"
    ):
        demo.architecture_for(str(tmp_path))


def test_weights_without_images_are_refused(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--weights", "w")
    assert done.returncode == 2
    assert "--weights goes with --images" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_two_jobs_differ_in_the_learning_rate_only(demo: ModuleType) -> None:
    options = argparse.Namespace(images="p/Roses", weights="", architecture="", output=Path("o"))
    one, two = demo.jobs(options)
    assert one.spec.training.learning_rate != two.spec.training.learning_rate
    same = {"training": one.spec.training}
    assert two.model_copy(update={"spec": two.spec.model_copy(update=same)}) == one
    assert (one.name, one.spec.output) == ("roses", "o/out")


def test_a_folder_that_is_not_there_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = run_demo(tmp_path, "--images", str(tmp_path / "nowhere"))
    assert done.returncode == 64
    assert done.stderr.startswith("error: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
