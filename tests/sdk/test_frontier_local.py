"""`retrainer frontier --local` on real photos with ImageNet weights: table, picture, page, exit code."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

COMMAND = str(Path(sys.executable).with_name("retrainer"))
EACH = 40
ARCHITECTURES = {
    "mobilenet_0.25_128": "mobilenet-025-128",
    "mobilenet_0.50_160": "mobilenet-050-160",
}


@pytest.fixture(scope="module")
def folder(flowers: Path, imagenet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 photos of each of three flowers, and a job file for them."""
    here = tmp_path_factory.mktemp("frontier")
    (here / "weights").mkdir()
    for file in imagenet_weights.glob("mobilenet_*.h5"):  # so none of Inception V3
        (here / "weights" / file.name).symlink_to(file)
    for label in ("daisy", "roses", "tulips"):
        (here / "photos" / label).mkdir(parents=True)
        for photo in sorted((flowers / label).iterdir())[:EACH]:
            shutil.copy(photo, here / "photos" / label)
    job = {
        "apiVersion": "retrainer.dev/v1alpha1",
        "kind": "RetrainJob",
        "metadata": {"name": "flowers"},
        "spec": {
            "architecture": "mobilenet_0.50_160",
            "weights": "weights",
            "images": "photos",
            "output": "out",
            "split": {"testingPercentage": 20},
            "training": {"steps": 100},
            "export": ["tflite"],
        },
    }
    (here / "job.yaml").write_text(yaml.safe_dump(job))
    return here


def frontier(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, "frontier", "--local", "-f", "job.yaml", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    return frontier(
        folder,
        "--architectures",
        ",".join(ARCHITECTURES),
        "--plot",
        "frontier.png",
        "--html",
        "page.html",
    )


def test_the_table_has_a_row_per_architecture_the_best_first_with_the_figures_of_its_run(
    folder: Path, done: subprocess.CompletedProcess[str]
) -> None:
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()[: 1 + len(ARCHITECTURES)]
    assert re.split(r" {2,}", head) == [
        "NAME", "ARCHITECTURE", "ACCURACY", "95% INTERVAL", "MULTIPLY-ADDS", "PARAMETERS",
    ]  # fmt: skip
    cells = [re.split(r" {2,}", row.strip()) for row in rows]
    assert {row[1]: row[0] for row in cells} == {
        architecture: f"flowers-{slug}" for architecture, slug in ARCHITECTURES.items()
    }
    for name, _, accuracy, *_ in cells:
        (result,) = (folder / "out").glob(f"{name}-*/result.json")
        metrics = json.loads(result.read_text())["metrics"]
        assert accuracy == f"{metrics['testAccuracy']:.1%}"
        assert f"All: {metrics['testImages']} test images" in done.stdout
        assert metrics["testImages"] > 15
        assert float(accuracy.rstrip("%")) > 60, "three kinds of flowers, by chance 0.33"
    accuracies = [float(row[2].rstrip("%")) for row in cells]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_two_are_tested_on_the_same_photos_though_their_bottlenecks_differ(
    folder: Path, done: subprocess.CompletedProcess[str]
) -> None:
    images = json.loads(next((folder / "out").glob("flowers-*/result.json")).read_text())[
        "metrics"
    ]["testImages"]
    assert f"of {images} common test images" in done.stdout
    assert "differ:" not in done.stdout


def test_the_picture_and_the_page_are_written_where_asked(
    folder: Path, done: subprocess.CompletedProcess[str]
) -> None:
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG\r\n")
    page = (folder / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "data:image/png;base64," in page
    for architecture, slug in ARCHITECTURES.items():
        assert f"flowers-{slug}" in page
        assert architecture in page
    assert "Wrote frontier.png" in done.stderr
    assert "Wrote page.html" in done.stderr


def test_nothing_of_the_libraries_reaches_the_terminal(
    done: subprocess.CompletedProcess[str],
) -> None:
    for chatter in ("WARNING", "INFO", "TensorFlow", "oneDNN", "Traceback"):
        assert chatter not in done.stdout + done.stderr


def test_an_architecture_without_weights_is_left_out_with_a_sentence(folder: Path) -> None:
    mixed = frontier(folder, "--architectures", "mobilenet_0.25_128,inception_v3")
    assert mixed.returncode == 0, mixed.stderr
    assert "mobilenet_0.25_128" in mixed.stdout
    (left_out,) = (line for line in mixed.stdout.splitlines() if line.startswith("Left out: "))
    assert left_out.startswith("Left out: flowers-inception-v3: ")
    assert "weights" in left_out


def test_what_is_wrong_with_all_of_them_ends_it_with_one_sentence_and_64(folder: Path) -> None:
    refused = frontier(folder, "--architectures", "inception_v3")
    assert refused.returncode == 64
    assert refused.stdout == ""
    assert "inception_v3" in refused.stderr.splitlines()[-1]
    assert "Traceback" not in refused.stderr
