"""Reading a run's tables leaves no thread of a library behind, which could abort the program's end."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.run_folder import write_run

# The store's own threads come and go as they like, and name themselves; pyarrow's keep the program's
# name and stay.
PROGRAM = """
import os, sys, time
import pyarrow.parquet
from retrainer import Run

def unnamed():
    names = [open(f"/proc/self/task/{t}/comm").read() for t in os.listdir("/proc/self/task")]
    return names.count(open("/proc/self/comm").read())

run = Run(sys.argv[1])
run.report
before = unnamed()
assert len(run.history()) > 0 and len(run.predictions()) > 0
end = time.monotonic() + 10
while unnamed() > before and time.monotonic() < end:
    time.sleep(0.05)
print(max(0, unnamed() - before))  # one of the store's may have had no name yet before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads that Linux's /proc shows")
def test_tables_are_read_in_the_calling_thread(tmp_path: Path) -> None:
    run = write_run(tmp_path / "flowers-12345678", [1, 2])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(run)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
