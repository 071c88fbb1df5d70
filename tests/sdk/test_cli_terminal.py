"""The installed command in real terminals: 80 columns, ASCII only, names that lie."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from tests.support.run_folder import write_run

from retrainer import jobfile

PROGRAM = Path(sys.executable).with_name("retrainer")
COLUMNS = 80


def in_a_terminal(*arguments: str, folder: Path, code: int = 0, **environment: str) -> list[str]:
    """The lines that `retrainer` with these arguments draws on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, COLUMNS))
    with subprocess.Popen(
        [PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "TERM": "xterm", **environment},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        drawn = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the last writer has closed its end
                break
            drawn += part
        os.close(ours)
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", drawn.decode("utf-8", "replace"))
    assert child.returncode == code, text
    assert "Traceback" not in text
    return [line for part in text.split("\n") for line in part.split("\r")]


def piped(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )


COMMANDS = [
    "", "architectures", "cache", "cache prune", "cache stats", "compare", "delete", "describe",
    "download", "frontier", "get", "init", "logs", "metrics", "plot", "predict", "resume", "run",
    "submit", "suspend", "tensorboard", "validate", "wait",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_page_is_cut_or_wider_than_80_columns(command: str, tmp_path: Path) -> None:
    lines = in_a_terminal(*command.split(), "--help", folder=tmp_path)
    assert max(map(len, lines)) <= COLUMNS
    assert not [line for line in lines if "…" in line]


def test_an_error_is_wrapped_between_words(tmp_path: Path) -> None:
    lines = in_a_terminal("run", ".", folder=tmp_path, code=64)
    assert max(map(len, lines)) <= COLUMNS
    assert " ".join(" ".join(lines).split()) == (
        "error: --output (spec.output): must not lie inside images, where it would be taken for a "
        "label, got 'out'"
    )


def test_a_frontier_fits_with_every_name_in_one_piece_or_cut_at_a_dash(tmp_path: Path) -> None:
    networks = ("mobilenet_0.25_160", "mobilenet_0.50_160", "inception_v3")
    runs = []
    for number, network in enumerate(networks):
        name = f"flower-photos-{network.replace('_', '-').replace('.', '')}"
        write_run(tmp_path / name, range(number), name=name, architecture=network)
        runs.append(f"./{name}")
    lines = in_a_terminal("compare", *runs, folder=tmp_path)
    assert max(map(len, lines)) <= COLUMNS
    text = "\n".join(lines)
    for network in networks:
        assert network in text
    assert "flower-photos-" in text
    piped_lines = piped("compare", *runs, folder=tmp_path).stdout.decode().splitlines()
    assert len(piped_lines[0].split("   ")) > 4
    assert [line.split()[0] for line in piped_lines[1:4]] == [run[2:] for run in runs]


ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}


def test_letters_that_a_terminal_lacks_are_shown_as_escapes(tmp_path: Path) -> None:
    name = "Gänseblümchen"
    (tmp_path / "out").mkdir()
    (tmp_path / "job.yaml").write_text(
        jobfile.template(images=name, output="out"), encoding="utf-8"
    )
    done = piped("validate", "-f", "job.yaml", folder=tmp_path, **ASCII)
    assert done.returncode == 64
    assert b"the folder G\\xe4nsebl\\xfcmchen does not exist" in done.stderr
    for arguments in (["--help"], ["run", "--help"], ["architectures"], ["run", name],
                  ["predict", "out", f"{name}.jpg"], ["compare", f"./{name}"],
                  ["architectures", "-o", "yaml"]):  # fmt: skip
        done = piped(*arguments, folder=tmp_path, **ASCII)
        assert done.returncode in (0, 64)
        assert b"Traceback" not in done.stderr
        done.stdout.decode("ascii")
        done.stderr.decode("ascii")


def test_a_locale_that_cannot_name_the_file_is_told(tmp_path: Path) -> None:
    strict = {**ASCII, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "job.yaml").write_text(jobfile.template(images="Blümchen"), encoding="utf-8")
    done = piped("validate", "-f", "job.yaml", folder=tmp_path, **strict)
    assert done.returncode == 64
    assert done.stderr.decode("ascii") == (
        "error: This terminal's encoding (ascii) has no \\xfc, which a name needs: set LC_ALL=C.UTF-8.\n"
    )


def test_a_file_name_cannot_forge_a_line_or_drive_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    lie = "a\nerror: all photos were deleted\x1b[2J\x1b]0;owned\x07"
    for arguments in (["run", lie], ["validate", "-f", lie], ["predict", "out", lie],
                  ["compare", f"./{lie}"]):  # fmt: skip
        done = piped(*arguments, folder=tmp_path)
        assert done.returncode == 64
        assert b"\x1b" not in done.stderr
        assert sum(line.startswith(b"error:") for line in done.stderr.splitlines()) == 1


def test_json_keeps_every_letter(tmp_path: Path) -> None:
    done = piped("architectures", "-o", "json", folder=tmp_path, **ASCII)
    assert len(json.loads(done.stdout)) == 33


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_completion_is_printed_in_one_way(shell: str, tmp_path: Path) -> None:
    done = piped("completion", shell, folder=tmp_path)
    assert done.returncode == 0
    assert b"_RETRAINER_COMPLETE" in done.stdout
    assert b"--show-completion" not in piped("--help", folder=tmp_path).stdout
