"""How jobs look in a notebook, an executed one included."""

import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import numpy as np
import pytest
from tests.support.fake_apiserver import FakeApiServer
from tests.support.run_folder import write_run

from retrainer.cluster.client import Client
from retrainer.cluster.requests import Cluster
from retrainer.results.comparison import compare
from retrainer.results.run import ConfusionMatrix, Run

REPOSITORY = Path(__file__).parents[3]
VOID = {"meta", "img", "br", "rect", "polyline"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed in the wrong order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def checked(html: str) -> str:
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return html


@pytest.fixture
def server() -> FakeApiServer:
    return FakeApiServer()


@pytest.fixture
def client(server: FakeApiServer) -> Client:
    client = Client._on(Cluster(server))
    client.submit({
        "apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob", "metadata": {"name": "flowers"},
        "spec": {"architecture": "mobilenet_0.50_160", "images": "s3://photos/flowers",
                 "output": "s3://models/flowers"},
    })  # fmt: skip
    return client


def test_a_finished_job_shows_its_accuracy_with_its_interval(
    server: FakeApiServer, client: Client
) -> None:
    server.status(
        "flowers", phase="Succeeded", metrics={"testAccuracy": 0.8875, "testImages": 160},
        progress={"percent": 100, "imagesTotal": 1498, "step": 500, "steps": 500},
        curve=[{"step": 0, "validationAccuracy": 0.2}, {"step": 10, "validationAccuracy": 0.9}],
    )  # fmt: skip
    html = checked(client.get("flowers")._repr_html_())
    assert "<b>88.8%</b> (95% interval 82.9 to 92.8%, 160 images)" in html
    assert "images 1,498, step 500 of 500" in html
    assert "<svg" in html


def test_texts_from_outside_are_escaped(server: FakeApiServer, client: Client) -> None:
    attack = "<script>alert(1)</script>"
    server.status("flowers", phase="Failed", message=attack)
    for html in (client.get("flowers")._repr_html_(), client.list()._repr_html_()):
        assert "<script>" not in checked(html)
        assert "&lt;script&gt;" in html


def test_a_job_that_the_operator_has_not_seen_says_so(client: Client) -> None:
    job = client.get("flowers")
    assert "No operator has taken this job up yet." in checked(job._repr_html_())
    assert repr(job) == "<Job default/flowers: Pending, No operator has taken this job up yet.>"


def test_an_empty_list_and_an_empty_history_say_so(client: Client) -> None:
    assert client.list("Failed")._repr_html_() == "<div>no RetrainJobs</div>"
    assert repr(client.list("Failed")) == "no RetrainJobs"
    assert client.get("flowers").history()._repr_html_() == "<div>no evaluation yet</div>"


def test_a_runs_matrix_and_history_are_tables_and_pictures(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path / "run", [3, 4]))
    matrix = run.confusion_matrix()
    assert checked(matrix._repr_html_()).count("<tr>") == 4
    assert matrix.to_pandas().loc["daisy", "roses"] == 1
    checked(run.history()._repr_html_())
    figures: list[Any] = [run.history().plot(), matrix.plot()]
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in figures)


ODD_LABELS = ["$\\frac$", "US$ and A$", "Gänseblümchen", "café_<b>&amp;", "_hidden", "tab\\t"]


def test_labels_of_any_letters_are_shown_as_they_are(tmp_path: Path) -> None:
    counts = np.eye(len(ODD_LABELS), dtype=np.int64) * 3
    matrix = ConfusionMatrix(ODD_LABELS, counts)
    page = checked(matrix._repr_html_())
    for label in ODD_LABELS:
        assert f"<b>{escape(label)}</b>" in page
    figure: Any = matrix.plot(str(tmp_path / "matrix.png"))
    (axis,) = figure.axes
    assert [t.get_text() for t in axis.get_xticklabels()] == ODD_LABELS
    assert [t.get_text() for t in axis.get_yticklabels()] == ODD_LABELS
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert list(matrix.to_pandas().columns) == ODD_LABELS


def luminance(colour: Any) -> float:
    shares = np.array(colour) / 255
    linear = np.where(shares <= 0.03928, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("paper", [255, 17], ids=["light notebook", "dark notebook"])
@pytest.mark.parametrize("right", [2, 50, 55, 70, 84, 86, 100])
def test_counts_can_be_read_on_every_shade_of_blue(right: int, paper: int) -> None:
    matrix = ConfusionMatrix(["daisy", "rose"], np.array([[right, 100 - right], [0, 1]]))
    match = re.search(r"rgba\((\d+),(\d+),(\d+),([\d.]+)\);color:([#\w]+)", matrix._repr_html_())
    assert match
    blue, alpha = np.array([int(c) for c in match.groups()[:3]]), float(match[4])
    ground = luminance(alpha * blue + (1 - alpha) * paper)
    ink = 1.0 if match[5] == "#fff" or paper < 128 else 0.0
    low, high = sorted((ground, ink))
    assert (high + 0.05) / (low + 0.05) > 4


def test_a_runs_folder_of_any_name_is_shown_in_pictures(tmp_path: Path) -> None:
    names = ["$\\frac$", "größer $5$"]
    runs = [str(write_run(tmp_path / name, [i], name="flowers")) for i, name in enumerate(names)]
    comparison = compare(runs)
    assert sorted(row.name for row in comparison.rows) == sorted(names)
    picture: Any = comparison.plot(str(tmp_path / "both.png"))
    history: Any = Run(runs[0], name=names[0]).history().plot(str(tmp_path / "curve.png"))
    assert history.axes[0].get_title() == names[0]
    for figure in (picture, history):
        assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_notebook_shows_the_job_while_it_waits_and_its_curve_after(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    setup = f"""
import threading
from retrainer.cluster.requests import Cluster
from retrainer.cluster.client import Client
from tests.support.fake_apiserver import FakeApiServer
server = FakeApiServer()
job = Client._on(Cluster(server)).submit({{
    "apiVersion": "retrainer.dev/v1alpha1", "kind": "RetrainJob", "metadata": {{"name": "flowers"}},
    "spec": {{"architecture": "inception_v3", "images": "s3://photos/x", "output": "s3://models/x"}},
}})
def operate():
    server.wait_for_watch()
    server.status("flowers", phase="Training")
    server.status("flowers", phase="Succeeded", message="Well done.", run={str(tmp_path / "run")!r})
threading.Thread(target=operate).start()
job.wait(timeout=60)
None
"""
    new: Any = nbformat.v4
    cells = [new.new_code_cell(c) for c in (setup, "job.history(whole=True).plot()", "job")]
    notebook = new.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(REPOSITORY)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()
    waited, drawn, shown = (cell.outputs for cell in notebook.cells)
    assert len(waited) == 1, "one display, kept up to date"
    assert "Succeeded" in waited[0].data["text/html"]
    assert "Well done." in waited[0].data["text/html"]
    assert "image/png" in drawn[0].data
    assert "text/html" in shown[0].data
