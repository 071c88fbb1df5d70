"""Reading a run's tables leaves no thread of a library behind, which could abort the program's end."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.run_folder import write_run

PROGRAM = """
import os, sys
import pyarrow.parquet
from retrainer import Run
run = Run(sys.argv[1])
run.report
before = len(os.listdir("/proc/self/task"))
assert len(run.history()) > 0 and len(run.predictions()) > 0
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux's /proc shows")
def test_tables_are_read_in_the_calling_thread(tmp_path: Path) -> None:
    run = write_run(tmp_path / "flowers-12345678", [1, 2])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(run)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
