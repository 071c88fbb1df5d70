"""`python tests/cluster/devcluster`: a real Kubernetes cluster on this machine, from nothing."""

from __future__ import annotations

import argparse
import sys

import binaries
from failure import ClusterError, say


def main() -> int:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("binaries", help="build what is missing; print name and path")
    build.add_argument("names", nargs="*", help="default: all")
    arguments = parser.parse_args()
    try:
        for name, path in binaries.ensure(arguments.names or binaries.BINARIES).items():
            print(f"{name}\t{path}")
    except ClusterError as error:
        say(f"devcluster: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
