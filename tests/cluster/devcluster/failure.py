"""The one exception of this tool, and the lines it shows while it works."""

import sys


class ClusterError(Exception):
    """Something a person can act on: the message is all that is shown."""


def say(line: str) -> None:
    """Progress goes to stderr: stdout carries only what a caller reads."""
    print(line, file=sys.stderr, flush=True)
