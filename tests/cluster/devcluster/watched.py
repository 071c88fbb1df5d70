"""Commands that take minutes: they say all the while how far they are."""

import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from tests.cluster.devcluster.failure import say

EVERY = 30.0
"""Seconds between two lines about the same command."""


def run(
    command: list[str],
    progress: Callable[[list[str]], str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: IO[str] | None = None,
    every: float = EVERY,
) -> subprocess.CompletedProcess[str]:
    """Run it; at intervals, say what `progress` makes of the lines that it has printed so far."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        output = process.stdout

        def read() -> None:
            for line in output:
                lines.append(line.rstrip("\n"))  # noqa: PERF401 - the other thread reads them

        reader = threading.Thread(target=read)
        reader.start()
        reader.join(every)
        while reader.is_alive():
            say(progress(lines))
            reader.join(every)
    return subprocess.CompletedProcess(command, process.returncode, "\n".join(lines))


def duration(seconds: float) -> str:
    """90 s as "1 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
