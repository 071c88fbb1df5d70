"""The picture of a comparison: what is written beside each job can be read."""

from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import get_font_names

from retrainer.api import ARCHITECTURES
from retrainer.api.interval import wilson
from retrainer.results.comparison import Comparison
from retrainer.results.rows import Row
from retrainer.results.run import ConfusionMatrix
from retrainer.sweep import matching


def row(name: str, architecture: str, right: int, rate: float | None = 512.0) -> Row:
    network = ARCHITECTURES[architecture]
    low, high = wilson(right / 165, 165)
    return Row(
        name, architecture, right / 165, low, high, 165,
        network.multiply_adds, network.parameters, rate,
    )  # fmt: skip


EVERY_NETWORK = [
    row(name, name, 130 + 2 * rank - 9 * (rank % 3 == 1))
    for rank, name in enumerate(matching("mobilenet_*,inception_v3"))
]
FIVE_NETWORKS = [
    row(name, name, right)
    for name, right in (
        ("mobilenet_0.25_128", 136), ("mobilenet_0.25_224", 135), ("mobilenet_0.50_160", 147),
        ("mobilenet_0.75_192", 144), ("mobilenet_1.0_224", 149),
    )
]  # fmt: skip
ONE_NETWORK = [
    row("flowers-4000", "mobilenet_0.50_160", 147, None),
    row("flowers-500", "mobilenet_0.50_160", 146),
    row("a-name-as-long-as-a-jobs-name-is-allowed-to-be", "mobilenet_0.50_160", 146),
]


def drawn(rows: list[Row]) -> tuple[list[str], list[str]]:
    """What stands in the bubbles and in the legend; nothing of it outside the picture."""
    figure = Comparison(rows, [], []).plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axis,) = figure.axes
    (legend,) = figure.legends
    for box in [t.get_window_extent(canvas.get_renderer()) for t in axis.texts] + [
        legend.get_window_extent(canvas.get_renderer())
    ]:
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    return [t.get_text() for t in axis.texts], [t.get_text() for t in legend.get_texts()]


@pytest.mark.parametrize(
    "rows",
    [EVERY_NETWORK, FIVE_NETWORKS, ONE_NETWORK, ONE_NETWORK[:1]],
    ids=["every-network", "five-networks", "one-network", "one-job"],
)
def test_the_legend_names_the_job_of_each_number(
    rows: list[Row], recwarn: pytest.WarningsRecorder
) -> None:
    numbers, names = drawn(rows)
    assert numbers == [str(i) for i in range(1, len(rows) + 1)]
    assert [name.split()[0] for name in names] == numbers
    assert not recwarn.list, "a warning would stand in the user's terminal"


def test_a_name_goes_with_its_rate_where_there_was_one() -> None:
    assert drawn(FIVE_NETWORKS)[1][0] == "1  0.25@128, 512/s"
    assert drawn(ONE_NETWORK)[1] == [
        "1  flowers-4000",
        "2  flowers-500, 512/s",
        "3  a-name-as-long-as-a-jobs-na…, 512/s",
    ]


def test_jobs_of_one_network_stand_side_by_side() -> None:
    (axis,) = Comparison(ONE_NETWORK, [], []).plot().axes
    places = {
        float(np.ravel(line.get_xdata())[0]) for line in axis.lines if line.get_marker() == "_"
    }
    assert len(places) == 3


def test_the_axis_says_on_how_many_images_where_all_have_the_same() -> None:
    (axis,) = Comparison(FIVE_NETWORKS, [], []).plot().axes
    assert axis.get_ylabel() == "test accuracy (165 images)"


def test_the_fonts_for_labels_of_other_scripts_are_those_of_this_machine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    matrix = ConfusionMatrix(["Größe", "tulips"], np.eye(2, dtype=np.int64))
    figure = matrix.plot()
    FigureCanvasAgg(figure).draw()
    first, *others = figure.axes[0].get_yticklabels()[0].get_fontfamily()
    assert first == "sans-serif"
    assert set(others) <= set(get_font_names())
    assert not caplog.records, "matplotlib logs each font that it does not find"


def test_the_bubbles_of_many_jobs_of_one_network_stay_on_the_picture() -> None:
    rows = [row("small", "mobilenet_0.25_128", 136)]
    rows += [row(f"flowers-{i}", "mobilenet_0.50_160", 147 - i) for i in range(8)]
    (axis,) = Comparison(rows, [], []).plot().axes
    right = axis.get_xlim()[1]
    assert all(np.max(np.ravel(line.get_xdata())) < right for line in axis.lines)


def test_the_names_of_labels_are_cut_rather_than_push_the_confusion_matrix_off_the_picture(
    recwarn: pytest.WarningsRecorder,
) -> None:
    names = [f"{flower} {'and others of its kind ' * 4}" for flower in ("roses", "tulips")]
    figure = ConfusionMatrix(names, np.eye(2, dtype=np.int64)).plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (axis,) = figure.axes
    for tick in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        box = tick.get_window_extent(canvas.get_renderer())
        assert box.x0 >= 0, tick.get_text()
        assert box.y0 >= 0, tick.get_text()
    assert not recwarn.list


def luminance(colour: Any) -> float:
    shares = np.array(to_rgb(colour))
    linear = np.where(shares <= 0.03928, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.parametrize("right", [2, 50, 60, 70, 71, 72, 73, 75, 80, 90, 100])
def test_the_counts_of_a_confusion_matrix_can_be_read_on_every_blue(right: int) -> None:
    matrix = ConfusionMatrix(["daisy", "rose"], np.array([[right, 100 - right], [0, 1]]))
    (axis,) = matrix.plot().axes
    (picture,) = axis.images
    ground = luminance(picture.cmap(right / 100)[:3])
    low, high = sorted((ground, luminance(axis.texts[0].get_color())))
    assert (high + 0.05) / (low + 0.05) > 4.5
