"""What a run looks like, on a terminal and elsewhere."""

import io
import re

import pytest
from rich.console import Console

from retrainer.api import CurvePoint, Phase, Progress, Report
from retrainer.local.display import Display, Pace, stride
from retrainer.views.text import Columns, duration, one_line, paragraph, printable


def out(*, terminal: bool = False) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    console = Console(
        file=text, force_terminal=terminal, width=100, markup=False, highlight=False, emoji=False
    )
    return console, text


def report(stage: Phase = Phase.BOTTLENECKS, **fields: object) -> Report:
    base = {"task": "train", "name": "flowers", "uid": "u", "stage": stage}
    return Report.model_validate({**base, **fields})


def counted(total: int, cached: int, computed: int) -> Report:
    counts = Progress(images_total=total, images_cached=cached, images_computed=computed)
    return report(progress=counts, images_per_second=500.0 if computed else None)


def trained(steps: int, interval: int = 10, upto: int | None = None) -> Report:
    trained_report = report(Phase.TRAINING, progress=Progress(step=upto or steps, steps=steps))
    for step in (*range(0, upto or steps, interval), upto or steps):
        trained_report.curve.add(
            CurvePoint(step=step, training_accuracy=0.9, validation_accuracy=None, cross_entropy=1)
        )
    return trained_report


def steps_in(text: str) -> list[int]:
    """The steps in the lines of evaluations, which stand under one line of titles."""
    assert text.count("training accuracy") == 1
    lines = re.findall(r"^ +([\d,]+) +[\d.]+%", text, re.MULTILINE)
    return [int(step.replace(",", "")) for step in lines]


class Clock:
    """A clock whose seconds pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("steps", "interval", "every"),
    [(500, 10, 50), (4000, 10, 500), (100, 10, 10), (10, 10, 10), (10_000_000, 10, 1_000_000),
     (4000, 1, 500), (200, 10, 20)],
)  # fmt: skip
def test_step_lines_are_at_most_twenty_at_round_steps(
    steps: int, interval: int, every: int
) -> None:
    assert stride(steps // interval + 1, interval) == every
    console, text = out()
    with Display(console) as display:
        display.report(trained(min(steps, 4000), interval))
    assert 2 <= len(steps_in(text.getvalue())) <= 21


def test_a_step_line_has_the_three_figures_of_retrain_py() -> None:
    console, text = out()
    with Display(console) as display:
        display.report(trained(500))
    assert text.getvalue().splitlines()[:2] == [
        "    step   training accuracy   validation accuracy   cross entropy",
        "       0               90.0%                     -          1.0000",
    ]


def test_no_step_is_printed_twice_and_the_last_one_is_printed() -> None:
    console, text = out()
    with Display(console) as display:
        for upto in range(10, 500, 10):
            display.report(trained(500, upto=upto))
        display.report(trained(500))
        display.report(trained(500))
    assert steps_in(text.getvalue()) == list(range(0, 501, 50))


def test_a_run_that_stopped_early_has_its_last_step() -> None:
    console, text = out()
    with Display(console) as display:
        early = trained(500, upto=130)
        display.report(early)
        display.report(early.model_copy(update={"reason": "Exporting", "message": "Exporting."}))
    assert steps_in(text.getvalue()) == [0, 50, 100, 130]


def test_what_is_said_stands_between_the_reports_before_and_after_it() -> None:
    console, text = out()
    with Display(console) as display:
        display.log("Listing.")
        display.report(trained(500))
        display.warning("few images")
    lines = text.getvalue().splitlines()
    assert lines[0] == "Listing."
    assert any(line.startswith("     500 ") for line in lines[1:-1])
    assert lines[-1] == "warning: few images"


def test_every_step_is_printed_when_asked_for() -> None:
    console, text = out()
    with Display(console, every_step=True) as display:
        display.report(trained(500))
    assert len(steps_in(text.getvalue())) == 51


def test_away_from_a_terminal_progress_is_a_line_every_five_seconds() -> None:
    console, text = out()
    clock = Clock()
    with Display(console, clock=clock) as display:
        display.report(report())
        for second in range(12):
            clock.now = float(second)
            display.report(counted(10_000, 1_000, 500 * second))
        clock.now = 18.0
        display.report(counted(10_000, 1_000, 9_000))
    assert text.getvalue().splitlines() == [
        "listing images",
        "bottlenecks 1,000/10,000 images (1,000 cached)",
        "bottlenecks 3,500/10,000 images (500 images/s, 13 s left, 1,000 cached)",
        "bottlenecks 6,000/10,000 images (500 images/s, 8 s left, 1,000 cached)",
        "bottlenecks 10,000/10,000 images (500 images/s, 1,000 cached)",
    ]
    assert "\x1b" not in text.getvalue()


def test_on_a_terminal_a_bar_moves_and_the_bottlenecks_leave_one_line() -> None:
    console, text = out(terminal=True)
    clock = Clock()
    with Display(console, clock=clock) as display:
        display.report(counted(1_000, 0, 0))
        clock.now = 2.0
        display.report(counted(1_000, 0, 1_000))
        display.report(counted(1_000, 0, 1_000))
        display.report(trained(500))
    shown = text.getvalue()
    assert shown.count("bottlenecks 1,000 images (500 images/s)\n") == 1
    assert "\x1b[" in shown
    assert "━" in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_images_that_were_done_between_two_reports_have_their_line(terminal: bool) -> None:
    console, text = out(terminal=terminal)
    with Display(console) as display:
        display.report(counted(1_000, 0, 800))
        counts = Progress(images_total=1_000, images_cached=0, images_computed=1_000, steps=500)
        display.report(report(Phase.TRAINING, progress=counts))
        display.report(report(Phase.TRAINING, progress=counts))
    line = "bottlenecks 1,000 images\n" if terminal else "bottlenecks 1,000/1,000 images\n"
    assert text.getvalue().count(line) == 1


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    console, text = out(terminal=True)
    display = Display(console)
    display.warning("careful")
    assert text.getvalue() == "warning: careful\n"


def test_a_file_name_cannot_drive_the_terminal_or_be_taken_for_markup() -> None:
    console, text = out(terminal=True)
    display = Display(console)
    display.log("\x1b]0;owned\x07 [bold]a[/bold] \r :smile: tulips")
    assert "\x1b]0" not in text.getvalue()
    assert "\\x1b]0;owned\\x07 [bold]a[/bold] \\r :smile: tulips" in text.getvalue()


def test_a_pace_needs_something_done_since_it_was_first_asked() -> None:
    clock = Clock()
    pace = Pace(clock)
    assert pace(100, 900, "images") == ""
    clock.now = 2.0
    assert pace(100, 900, "images") == ""
    assert pace(103, 897, "images") == "1.5 images/s, 9 min 58 s left"
    assert pace(1000, 0, "images") == "450 images/s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7440, "2 h 4 min"), (59.6, "1 min 0 s")],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_printable_keeps_every_script_and_shows_the_rest_as_escapes() -> None:
    assert printable("Größe 图像 🌷\n") == "Größe 图像 🌷\n"
    assert printable("a\tb\x00\u202e\ud800") == "a\\tb\\x00\\u202e\\ud800"


def test_printable_shows_what_the_terminals_encoding_lacks() -> None:
    assert printable("Größe", "ascii") == "Gr\\xf6\\xdfe"
    assert printable("Größe", "latin-1") == "Größe"


def test_a_line_break_in_a_name_cannot_begin_a_line_of_ours() -> None:
    assert one_line("a\nerror: all is lost\r\x1b[2J") == "a\\nerror: all is lost\\r\\x1b[2J"
    assert paragraph("There is no a\nerror: b.jpg.\n    deep") == (
        "There is no a\n  error: b.jpg.\n    deep"
    )


def test_a_paragraph_is_wrapped_between_words_and_a_path_stays_whole() -> None:
    path = "/photos/" + "x" * 80
    text = paragraph(
        f"error: the folder {path} is not there, and this is a long sentence.\n  next", 40
    )
    assert text.splitlines() == [
        "error: the folder",
        f"  {path}",
        "  is not there, and this is a long",
        "  sentence.",
        "  next",
    ]
    assert paragraph(path * 3) == path * 3


def table(*rows: tuple[str, ...], width: int | None) -> list[str]:
    columns = Columns(("NAME", "SCORE", "THEN"), right="SCORE", width=width)
    columns.fit(rows)
    return [*columns.head(), *(line for row in rows for line in columns.lines(row))]


def test_a_table_that_fits_is_one_line_a_row() -> None:
    row = ("roses", "1.0", "daisy 0.12")
    lines = ["NAME    SCORE   THEN", "roses     1.0   daisy 0.12"]
    assert table(row, width=80) == table(row, width=None) == lines


def test_a_narrow_terminal_breaks_the_widest_cells_and_loses_nothing() -> None:
    row = ("photos/" + "x" * 30, "1.0", "daisy 0.12, tulips 0.10")
    lines = table(row, width=45)
    assert max(map(len, lines)) <= 45
    score, then = lines[0].index("SCORE"), lines[0].index("THEN")
    assert "".join(line[:score].strip() for line in lines[1:]) == row[0]
    assert " ".join(line[then:].strip() for line in lines[1:]).strip() == row[2]
    assert table(row, width=None)[1].split("   ") == [row[0], "  1.0", row[2]]


def test_where_no_columns_fit_each_row_is_a_list() -> None:
    assert table(("roses" * 4, "1.0", "daisy 0.12, tulips 0.10"), width=26) == [
        "NAME:                 rosesrosesrosesroses",
        "SCORE:                1.0",
        "THEN:                 daisy 0.12, tulips",
        "                      0.10",
        "",
    ]


def test_the_display_fits_a_terminal_of_80_columns() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=80, markup=False, highlight=False)
    clock = Clock()
    with Display(console, clock=clock) as display:
        display.warning("Label tulips has 12 images, " + "and that is too few " * 6)
        counts = Progress(images_total=123_456, images_cached=12_345, images_computed=99_999,
                          images_rejected=12)  # fmt: skip
        display.report(report(progress=counts, images_per_second=512.0))
        clock.now = 3.0
        display.report(trained(10_000_000, interval=1_000_000))
    visible = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text.getvalue())
    lines = [line for part in visible.splitlines() for line in part.split("\r")]
    assert max(map(len, lines)) <= 80
    assert any("10,000,000" in line for line in lines)
    assert "too few and\n  that is too few" in visible
