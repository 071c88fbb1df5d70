"""The development cluster's tool as tests call it: in a process of its own, from any folder."""

import functools
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "tests.cluster.devcluster")
"""The development cluster's tool, to be run in the checkout."""

uncaptured: Callable[[], AbstractContextManager[None]] = nullcontext
"""A context in which output reaches the terminal at once; tests/conftest.py sets pytest's."""
_LONG = 30.0
"""Seconds after which a call is taken to build something, so that its progress is shown."""


def run(*arguments: str) -> str:
    """Run the tool and return its output; its progress goes to stderr, the end of it into errors too."""
    last: deque[str] = deque(maxlen=10)
    begun = time.monotonic()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tool:
        assert tool.stdout is not None
        assert tool.stderr is not None
        for line in tool.stderr:
            long = time.monotonic() - begun > _LONG
            with uncaptured() if long else nullcontext():
                print(line, end="", file=sys.stderr, flush=True)
            last.append(line)
        answer = tool.stdout.read()
    if tool.returncode != 0:
        raise RuntimeError(f"devcluster {' '.join(arguments)} failed:\n{''.join(last)}")
    return answer


@functools.cache
def binary(name: str) -> Path:
    """The path of a program that is built from its Go module; built when missing (minutes)."""
    return Path(run("binaries", name).strip().split("\t")[1])
