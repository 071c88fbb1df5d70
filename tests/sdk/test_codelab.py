"""The codelab's five commands work as docs/reference/retrain-py.md prints them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.operator.harness import eventually
from tests.support.ports import free_port

WEIGHTS = {
    "mobilenet_0.50_224": "mobilenet_5_0_160_tf_no_top.weights.h5",
    "mobilenet_1.0_224": "mobilenet_1_0_224_tf_no_top.weights.h5",
}
"""The tests have no network to download them."""
EACH = 15


def commands() -> list[str]:
    page = (REPOSITORY / "docs" / "reference" / "retrain-py.md").read_text()
    block = page.partition("## The codelab's five commands")[2].split("```")[1]
    return block.replace("\\\n", " ").strip().splitlines()


def typed(command: str, folder: Path) -> list[str]:
    """What a shell is given to run the command in the folder."""
    programs = f'PATH="{Path(sys.executable).parent}:$PATH"'
    return ["bash", "-c", f'cd "{folder}" && {programs} exec {command}']


def run(command: str, folder: Path) -> str:
    done = subprocess.run(typed(command, folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def curves(command: str, folder: Path) -> list[str]:
    """The names of the curves that TensorBoard serves."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/data/runs"
    with subprocess.Popen(typed(f"{command} --port {port}", folder)) as board:
        try:
            return eventually(lambda: read(url), within=240, what="TensorBoard lists the curves")
        finally:
            board.send_signal(signal.SIGINT)


def read(url: str) -> list[str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            names: list[str] = json.load(answer)
            return names
    except OSError:
        return []


@pytest.mark.slow
def test_the_codelabs_commands_work_as_they_are_printed(
    tmp_path: Path, flowers: Path, imagenet_weights: Path
) -> None:
    for label in sorted(flowers.iterdir()):
        (tmp_path / "flower_photos" / label.name).mkdir(parents=True)
        for photo in sorted(label.glob("*.jpg"))[:EACH]:
            shutil.copy(photo, tmp_path / "flower_photos" / label.name)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    heads: list[str] = []
    for command in commands():
        name = command.split()[1]
        if name == "run":
            architecture = re.findall(r"--architecture (\S+)", command)[0]
            run(f"{command} --weights {imagenet_weights / WEIGHTS[architecture]}", tmp_path)
            heads.append(architecture)
        elif name == "tensorboard":
            assert sorted(Path(curve).name for curve in curves(command, tmp_path)) == [
                "train", "validation"
            ]  # fmt: skip
        else:
            labels = run(command, tmp_path).splitlines()
            assert labels[0].startswith("daisy (score=")
            assert len(labels) == 5
    assert heads == ["mobilenet_0.50_224", "mobilenet_0.50_224", "mobilenet_1.0_224"]
    assert len(commands()) == 5
    results = [json.loads(path.read_text()) for path in tmp_path.glob("tf_files/*/result.json")]
    computed = sorted(result["progress"]["imagesComputed"] for result in results)
    assert computed == [0, 5 * EACH, 5 * EACH]
