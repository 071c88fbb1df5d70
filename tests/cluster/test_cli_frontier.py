"""`retrainer frontier` on a full node: a job per network, a table, a picture, a page."""

import json
from pathlib import Path

import pytest
from PIL import Image
from tests.support import installation
from tests.support.installation import Installation
from tests.support.terminal import Terminal, terminal

pytestmark = pytest.mark.cluster
EACH = 40
"""Photos of each of the five flowers."""
NETWORKS = ["mobilenet_0.25_128", "mobilenet_0.50_128"]


def test_the_frontier_of_two_networks_on_a_few_flowers(
    here: Installation, flowers: Path, tmp_path: Path
) -> None:
    few = tmp_path / "flowers"
    for label in flowers.iterdir():
        (few / label.name).mkdir(parents=True)
        for photo in sorted(label.iterdir())[:EACH]:
            (few / label.name / photo.name).write_bytes(photo.read_bytes())
    assert here.cluster.s3 is not None
    bucket = installation.bucket_of(here.cluster.s3, "few")
    bucket.upload(few, "flowers")

    shell: Terminal = terminal(here, tmp_path)
    document = here.manifest(
        "bunch",
        {
            "images": f"s3://{bucket.name}/flowers",
            "split": {"testingPercentage": 25, "validationPercentage": 10},
            "export": ["tflite"],
        },
    )
    file = shell.write("bunch.yaml", document)
    arguments = ["-f", file, "--architectures", ",".join(NETWORKS), "--timeout", "900"]
    output = shell("frontier", *arguments, "--plot", "frontier.png", "--html", "frontier.html")

    names = {"bunch-mobilenet-025-128": NETWORKS[0], "bunch-mobilenet-050-128": NETWORKS[1]}
    head, *rows = [line.split() for line in output.lines[:3]]
    assert head == ["NAME", "ARCHITECTURE", "ACCURACY", "95%", "INTERVAL", "MULTIPLY-ADDS",
                    "PARAMETERS"]  # fmt: skip
    assert {row[0]: row[1] for row in rows} == names
    figures = [[float(row[i].rstrip("%")) for i in (3, 2, 5)] for row in rows]
    assert all(low < accuracy < high for low, accuracy, high in figures), "their intervals"
    assert all(accuracy > 60 for _, accuracy, _ in figures)
    assert "McNemar" in output.out or "test images" in output.lines[3]
    assert output.err.splitlines()[0] == f"submitted 2 jobs to {here.namespace}"
    assert {job["metadata"]["name"] for job in here.get("retrainjobs")["items"]} == set(names)

    with Image.open(shell.folder / "frontier.png") as picture:
        assert picture.size == (1350, 840)
    page = (shell.folder / "frontier.html").read_text()
    assert "data:image/png;base64," in page
    assert all(name in page for name in names)

    frontier = json.loads(shell("frontier", *arguments, "-o", "json").out)
    assert {row["name"] for row in frontier["rows"]} == set(names), (
        "jobs that are there are not run"
    )
