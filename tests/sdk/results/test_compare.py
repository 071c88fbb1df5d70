"""compare: the test of McNemar, Holm's correction, what is told, and what it looks like."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fake_apiserver import FakeApiServer
from tests.support.run_folder import write_run
from tests.support.submitted import submitted

from retrainer.cluster.client import Client
from retrainer.cluster.requests import Cluster
from retrainer.errors import NotFound, UserError
from retrainer.results.comparison import Comparison, compare
from retrainer.results.rows import Row, frontier_of
from retrainer.results.run import Run
from retrainer.results.significance import holm, mcnemar
from retrainer.views.chart import chart


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (6, 0, 2 / 64),
        (9, 1, 22 / 1024),  # 2 * (C(10,0) + C(10,1)) / 2^10
        (1, 9, 22 / 1024),
    ],
)
def test_mcnemars_exact_test_gives_the_binomial_tail(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, rel=1e-9)


def test_mcnemar_agrees_with_scipy() -> None:
    from scipy.stats import binomtest

    for first in range(0, 40, 3):
        for second in range(0, 40, 4):
            if first + second:
                expected = binomtest(first, first + second, 0.5).pvalue
                assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_is_quick_and_finite_for_many_images() -> None:
    assert mcnemar(50_000, 50_800) == pytest.approx(0.0118, abs=2e-4)
    assert mcnemar(0, 100_000) == 0.0


def test_holms_correction_is_that_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=20))
def test_corrected_values_are_never_smaller_and_keep_their_order(values: list[float]) -> None:
    corrected = holm(values)
    assert all(c >= v and c <= 1 for c, v in zip(corrected, values, strict=True))
    pairs = sorted(zip(values, corrected, strict=True))
    assert [c for _, c in pairs] == sorted(c for _, c in pairs)


def test_a_real_difference_is_told_with_its_counts(tmp_path: Path) -> None:
    good = write_run(tmp_path / "a", [0], name="good")
    bad = write_run(tmp_path / "b", range(0, 20), name="bad")
    comparison = compare([str(bad), str(good)])
    assert [row.name for row in comparison.rows] == ["good", "bad"]
    assert str(comparison.differences[0]) == (
        "good is better than bad (of 60 common test images, 19 right in good only, 0 in bad only, "
        "p = 3.8e-06)."
    )


def test_noise_is_not_taken_for_progress(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [0, 1, 2], name="first")
    second = write_run(tmp_path / "b", [3, 4, 5, 6], name="second")
    comparison = compare([str(first), str(second)])
    assert comparison.rows[0].name == "first"
    assert not comparison.differences[0].significant
    assert str(comparison.differences[0]).startswith(
        "No difference between first and second is shown"
    )


def test_many_comparisons_are_corrected_for_their_number(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "best", [], name="best")]
    runs += [write_run(tmp_path / str(i), range(6), name=f"other{i}") for i in range(4)]
    comparison = compare([str(run) for run in runs])
    assert len(comparison.differences) == 4
    assert all(d.p == pytest.approx(min(1, 4 * 2 / 64)) for d in comparison.differences)
    assert not any(d.significant for d in comparison.differences), (
        "one alone would have had p = 0.03"
    )


def test_the_figures_of_a_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", [0, 1, 2], architecture="mobilenet_0.50_160")
    row = compare([Run(run)]).rows[0]
    assert row.accuracy == pytest.approx(0.95)
    assert row.low == pytest.approx(0.8635, abs=1e-3)  # Wilson, 57 of 60
    assert row.high == pytest.approx(0.9829, abs=1e-3)
    assert row.multiply_adds is not None
    assert 70e6 < row.multiply_adds < 80e6
    assert row.parameters is not None
    assert row.parameters % 1 == 0
    assert row.images_per_second == 520


def test_two_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    first = write_run(tmp_path / "flowers-11111111", [0], name="flowers")
    second = write_run(tmp_path / "flowers-22222222", [1, 2], name="flowers")
    other = write_run(tmp_path / "other-33333333", [1, 2, 3], name="other")
    comparison = compare([str(second), str(first), str(other)])
    assert [row.name for row in comparison.rows] == [
        "flowers-11111111",
        "flowers-22222222",
        "other",
    ]
    assert "between flowers-11111111 and flowers-22222222 is shown" in str(
        comparison.differences[0]
    )


def test_one_run_twice_keeps_apart(tmp_path: Path) -> None:
    run = str(write_run(tmp_path / "a", name="flowers"))
    assert [row.name for row in compare([run, run]).rows] == ["a", "a (2)"]


def test_a_text_or_a_path_where_a_list_is_meant_is_an_error(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", name="flowers")
    server = FakeApiServer()
    job = submitted(server)
    client = Client._on(Cluster(server))
    server.status("flowers", phase="Succeeded", run=str(run))
    for one in (str(run), run):
        for compared in (compare, client.compare, job.refresh().compare):
            with pytest.raises(TypeError, match=r"^Give a list of jobs, such as \['.*/a'\]\.$"):
                compared(one)  # type: ignore[arg-type]
    assert [row.name for row in client.compare(["flowers"]).rows] == ["flowers"]
    assert [row.name for row in client.compare([run, str(run)]).rows] == ["a", "a (2)"]
    assert [row.name for row in job.compare([run]).rows] == ["a", "a (2)"]


def test_texts_name_jobs_and_runs_as_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "out" / "birds-1", name="birds")
    server = FakeApiServer()
    job = submitted(server)
    client = Client._on(Cluster(server))
    server.status("flowers", phase="Succeeded", run=str(write_run(tmp_path / "f", name="flowers")))
    job.refresh()
    for text in ("flowers", "rj/flowers", "retrainjob.retrainer.dev/flowers"):
        assert [row.name for row in client.compare([text]).rows] == ["flowers"]
        assert [row.name for row in job.compare([text]).rows] == ["f", "f (2)"]
    for text in ("out", "./out", "out/birds-1", str(tmp_path / "out")):
        assert [row.name for row in client.compare([text]).rows] == ["birds"]
        assert {row.name for row in job.compare([text]).rows} == {"birds", "flowers"}
    assert [row.name for row in compare(["out"]).rows] == ["birds"]
    (tmp_path / "rose.jpg").touch()
    for text in ("rose.jpg", "./rose.jpg"):
        with pytest.raises(UserError, match="is a picture, not a run"):
            client.compare([text])
    with pytest.raises(NotFound, match=r"No RetrainJob nothing .*There is no folder nothing here"):
        client.compare(["nothing"])


def test_nothing_to_compare_and_an_unfinished_run_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Give at least one job to compare"):
        compare([])
    (tmp_path / "run").mkdir()
    with pytest.raises(NotFound, match=r"There is no finished run in .*/run\."):
        compare([str(tmp_path / "run")])


def row(name: str, accuracy: float | None, cost: int | None) -> Row:
    return Row(name, "", accuracy, accuracy, accuracy, 10, cost, 1, None)


def test_the_frontier_is_what_no_other_beats_for_the_cost() -> None:
    rows = [row("dear", 0.9, 500), row("cheap", 0.8, 40), row("worse", 0.7, 60),
            row("same", 0.9, 600), row("none", None, 1), row("unknown", 0.99, None)]  # fmt: skip
    assert [r.name for r in frontier_of(rows)] == ["cheap", "dear"]


def test_the_picture_is_written_as_png(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / "a", range(9), name="a", architecture="mobilenet_0.25_128"),
        write_run(tmp_path / "b", range(4), name="b", architecture="mobilenet_1.0_224"),
    ]
    compare([str(run) for run in runs]).plot(str(tmp_path / "frontier.png"))
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_any_accuracy_is_no_error(tmp_path: Path) -> None:
    Comparison([row("a", None, None)], [], []).plot(str(tmp_path / "empty.png"))
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_a_comparison_is_json_and_a_frame_and_html(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", [], name="<b>a"), write_run(tmp_path / "b", [1], name="b")]
    comparison = compare([str(run) for run in runs])
    assert json.loads(json.dumps(comparison.to_dict()))["rows"][0]["accuracy"] == 1.0
    assert comparison.to_pandas()["name"].tolist() == ["<b>a", "b"]
    page = comparison.to_html()
    assert "&lt;b&gt;a" in page
    assert "<b>a" not in page
    assert "data:image/png;base64," in page
    assert "data:image" not in comparison._repr_html_()


def test_a_curve_is_drawn_with_characters() -> None:
    drawn = chart([0, 50, 100], [("o", "validation", [0.2, None, 0.9])], width=21, height=5)
    lines = drawn.splitlines()
    assert lines[0] == "   90.0% |                    o"
    assert lines[4] == "   20.0% |o"
    assert lines[-1].strip() == "o validation"
    assert chart([], [("o", "x", [])]) == "no evaluation yet"
    assert lines[-2].split() == ["0", "steps", "100"]


def test_a_curve_that_is_flat_is_drawn_at_its_value() -> None:
    for steps in ([0], [0, 10]):
        lines = chart(steps, [("o", "x", [1.0] * len(steps))]).splitlines()
        assert lines[0].startswith("  100.0% |o")
        assert lines[13] == "    0.0% |"
