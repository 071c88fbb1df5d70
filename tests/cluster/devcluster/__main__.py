"""`python tests/cluster/devcluster`: a real Kubernetes cluster on this machine, from nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import binaries
import lifecycle
from cluster import Cluster, Settings
from failure import ClusterError, say


def main() -> int:
    arguments = _parser().parse_args()
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return command(arguments)
    except ClusterError as error:
        say(f"devcluster: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devcluster", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("--name", default="dev", help="which cluster (default: dev)")

    up = commands.add_parser("up", parents=[named], help="bring a cluster up, or mend it")
    up.add_argument("--size", choices=("control-plane", "node"), default="control-plane")
    up.add_argument(
        "--kwok", type=int, default=0, metavar="NODES", help="simulate so many nodes and their pods"
    )
    up.add_argument("--bench", action="store_true", help="no limits on the controllers' requests")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", parents=[named], help="end it and delete what it left")
    down.add_argument("--keep-logs", action="store_true", help="and say where they are")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", parents=[named], help="a line per component")
    status.set_defaults(run=_status)

    config = commands.add_parser("kubeconfig", parents=[named], help="print a kubeconfig's path")
    config.add_argument("--user", help="of a user with a certificate; RBAC says what it may do")
    config.add_argument("--group", action="append", default=[], help="a group of that user")
    config.add_argument("--account", metavar="NAMESPACE/NAME", help="of a ServiceAccount")
    config.set_defaults(run=_kubeconfig)

    build = commands.add_parser("binaries", help="build what is missing; print name and path")
    build.add_argument("names", nargs="*", help="default: all")
    build.set_defaults(run=_binaries)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    settings = Settings(size=arguments.size, simulated_nodes=arguments.kwok, bench=arguments.bench)
    print(lifecycle.up(arguments.name, settings).admin)
    return 0


def _down(arguments: argparse.Namespace) -> int:
    lifecycle.down(arguments.name, arguments.keep_logs)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    return 0 if lifecycle.status(_existing(arguments.name)) else 1


def _kubeconfig(arguments: argparse.Namespace) -> int:
    cluster = _existing(arguments.name)
    if arguments.account:
        namespace, _, account = arguments.account.partition("/")
        print(cluster.account_kubeconfig(namespace, account))
    elif arguments.user:
        print(cluster.user_kubeconfig(arguments.user, tuple(arguments.group)))
    else:
        print(cluster.admin)
    return 0


def _binaries(arguments: argparse.Namespace) -> int:
    for name, path in binaries.ensure(arguments.names or binaries.BINARIES).items():
        print(f"{name}\t{path}")
    return 0


def _existing(name: str) -> Cluster:
    cluster = Cluster(name)
    if not cluster.exists:
        raise ClusterError(f"Cluster {name} is not there: bring it up first (`up --name {name}`).")
    return cluster


if __name__ == "__main__":
    sys.exit(main())
