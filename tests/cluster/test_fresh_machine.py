"""A machine with Python alone: what is left out there, and what its long builds show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cluster.devcluster import binaries, packages, watched
from tests.support.devcluster_tool import CHECKOUT

CHART = "tests/chart/test_render.py"


def collect(file: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The tests that would run here if nothing had been built yet."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", file]
    inherited = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        command, cwd=CHECKOUT, env=inherited | {"RETRAINER_CACHE": str(cache)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_what_needs_a_program_that_is_not_here_is_left_out_by_name_with_what_to_do(
    tmp_path: Path,
) -> None:
    done = collect(CHART, tmp_path)

    assert re.search(
        rf"^left out: \d+ tests that need helm \(`make tools` builds it\): {CHART} \(\d+\)$",
        done.stdout,
        re.MULTILINE,
    )
    assert f"{CHART}::" not in done.stdout


def test_in_ci_nothing_is_left_out(tmp_path: Path) -> None:
    done = collect(CHART, tmp_path, CI="true")

    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "tests that need helm (`make tools` builds it)" in done.stderr


def test_what_needs_python_alone_runs_without_any_of_it(tmp_path: Path) -> None:
    done = collect("tests/operator/planning/test_plan.py", tmp_path, CI="true", PATH="")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out" not in done.stdout


def test_contributing_lists_the_packages_that_the_tests_need() -> None:
    page = (CHECKOUT / "CONTRIBUTING.md").read_text()
    listed = re.search(r"apt-get install ([^`]*)`", page)

    assert listed, "CONTRIBUTING.md has no apt-get install line"
    assert set(packages.ALL) | {"python3", "python3-venv", "make", "git"} == set(listed[1].split())


def test_ci_installs_only_what_the_readmes_commands_cannot_start_without() -> None:
    script = (CHECKOUT / ".ci" / "run").read_text()
    listed = re.search(r"for package in (.*); do", script)

    assert listed
    assert listed[1].split() == ["python3", "python3-venv", "make", "git", "ca-certificates"]
    assert script.split()[-6:] == ["make", "setup", "make", "check", "make", "test"]


def test_a_long_command_says_all_the_while_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # It goes on once its second line has been shown.
    script = "print('first', flush=True); print('second', flush=True); input()"
    command = [sys.executable, "-c", f"{script}; raise SystemExit(3)"]
    read, write = os.pipe()

    def progress(lines: list[str]) -> str:
        if lines[-1:] == ["second"]:
            os.write(write, b"\n")
        return f"{len(lines)} lines"

    with os.fdopen(read) as answer:
        done = watched.run(command, progress, stdin=answer, every=0.05)
    os.close(write)

    assert (done.returncode, done.stdout) == (3, "first\nsecond")
    assert "2 lines" in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("compiled", "seconds", "line"),
    [
        (0, 20, "0 of 1,600 packages, 20 s so far"),
        (400, 120, "400 of 1,600 packages, 2 min 0 s so far, about 6 min 0 s left"),
        (1600, 500, "linking, 8 min 20 s so far"),
    ],
)
def test_a_build_says_how_many_packages_are_left_and_for_how_long(
    compiled: int, seconds: float, line: str
) -> None:
    assert binaries.progress(compiled, 1600, seconds) == line
