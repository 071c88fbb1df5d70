"""What `retrainer run` shows of a run, and how it ends, with a trainer that plays its part."""

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from retrainer import jobfile
from retrainer.api import RetrainJob, parse_job
from retrainer.cli import run as _cli_run

FAKE = Path(__file__).resolve().parent.parent / "support" / "fake_trainer.py"


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "flower_photos").mkdir()
    monkeypatch.chdir(tmp_path)


def job(name: str = "flowers") -> RetrainJob:
    return parse_job(jobfile.documents(jobfile.template(name=name), "job.yaml")[0][1])


def shown(scenario: str, *jobs: RetrainJob) -> str:
    text = io.StringIO()
    program = [sys.executable, str(FAKE), scenario]
    out = Console(file=text, width=100, markup=False, highlight=False, emoji=False)
    shown_jobs = jobs or (job(),)
    _cli_run.show(
        shown_jobs, again=["retrainer", "run", "-f", "my job.yaml"], program=program, out=out
    )
    return text.getvalue()


def test_a_run_ends_with_its_accuracy_and_where_everything_is() -> None:
    lines = shown("cached").splitlines()
    accuracy = lines.index("test accuracy 89.1% (95% interval 83.4 to 93.0%, 165 images)")
    facts = dict(line.strip().split(maxsplit=1) for line in lines[accuracy + 1 : -1])
    run = facts["run"]
    assert run.startswith("out/flowers-")
    assert facts == {
        "images": "1,498 (1,498 from the cache)",
        "time": "6 s",
        "run": run,
        "page": f"{run}/report.html",
        "files": "model.tflite, labels.txt",
    }
    assert lines[-1] == f"  try it    retrainer predict {run} IMAGE..."


def test_a_run_with_bad_photos_says_where_they_are_listed() -> None:
    (line,) = [t for t in shown("some-bad-photos").splitlines() if t.startswith("  rejected")]
    assert re.fullmatch(
        r"  rejected  12, each with its reason in out/flowers-[0-9a-f]{8}/rejected\.csv", line
    )


def test_warnings_logs_and_step_lines_are_shown() -> None:
    text = shown("well")
    assert "Converting the backbone, once per cache.\n" in text
    assert "warning: Label \\x1b[31mtulips\\x1b[0m [bold] has 12 images, fewer than 20.\n" in text
    assert len(re.findall(r"^ +[\d,]+ +[\d.]+% +[\d.]+% +[\d.]+$", text, re.MULTILINE)) == 11
    assert "cuDNN" not in text
    assert "absl" not in text


def test_ctrl_c_says_the_exact_command_that_goes_on() -> None:
    script = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)  # not as a nohup has it\n"
        "import sys; from retrainer import jobfile; from retrainer.cli import main, run\n"
        "from retrainer.api import *\n"
        "job = parse_job(jobfile.documents(jobfile.template(), 'x')[0][1]); import typer\n"
        "app = typer.Typer()\n"
        "@app.command()\n"
        "def go(): run.show([job], again=['retrainer', 'run', '-f', 'my job.yaml'], "
        f"program=[sys.executable, {str(FAKE)!r}, 'stop'])\n"
        "sys.exit(main.run(app, []))"
    )
    for number, code in (("INT", 130), ("TERM", 143), ("HUP", 129)):
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stderr is not None
            while "half way" not in child.stdout.readline():
                assert child.poll() is None
            child.send_signal(signal.Signals[f"SIG{number}"])
            error = child.stderr.read()
        assert child.returncode == code
        assert "holds at least 856 of 1,498 bottlenecks. Run it again to go on." in error
        assert error.endswith("\n  retrainer run -f 'my job.yaml'\n")
        assert "Traceback" not in error


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    def handled() -> object:
        with _cli_run.terminated_as_ctrl_c():
            return signal.getsignal(signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert handled() == signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert callable(handled())
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


def test_several_jobs_of_a_file_run_one_after_the_other() -> None:
    text = shown("cached", job("a"), job("b"))
    assert [line for line in text.splitlines() if line in ("a", "b")] == ["a", "b"]
    assert text.count("test accuracy") == 2
