"""`python -m tests.cluster.devcluster`: a real Kubernetes cluster on this machine, from nothing."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster.devcluster import (
    binaries,
    container_images,
    lifecycle,
    node,
    places,
    tools,
)
from tests.cluster.devcluster.cluster import Cluster, Settings
from tests.cluster.devcluster.failure import ClusterError, say


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
    up.add_argument(
        "--images", action="store_true", help="also build and load the project's container images"
    )
    up.add_argument("--json", action="store_true", help="print what tests need to know")
    up.set_defaults(run=_up)

    given = commands.add_parser("given", help="print KUBECONFIG if it stands in for a node")
    given.set_defaults(run=_given)

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

    provide = commands.add_parser(
        "tools", help="install and build what the tests need beyond Python"
    )
    provide.set_defaults(run=_tools)

    images = commands.add_parser("images", help="build container images; print name and digest")
    images.add_argument("targets", nargs="*", help="default: all")
    images.add_argument("--clean", action="store_true", help="delete archives and cached layers")
    images.set_defaults(run=_images)

    load = commands.add_parser("load", parents=[named], help="build and import into the node")
    load.add_argument("targets", nargs="*", help="images, or archives (*.tar); default: all images")
    load.set_defaults(run=_load)
    return parser


def _up(arguments: argparse.Namespace) -> int:
    settings = Settings(size=arguments.size, simulated_nodes=arguments.kwok, bench=arguments.bench)
    kubeconfig = places.given_kubeconfig() if settings.size == "node" else None
    if kubeconfig is not None:
        say("KUBECONFIG names a cluster: it is used, nothing is started. Unset it for our own.")
        print(kubeconfig)
        return 0
    cluster, new = lifecycle.up(arguments.name, settings)
    if arguments.images:
        _load_into(cluster, list(container_images.TARGETS))
    print(json.dumps(lifecycle.facts(cluster, new)) if arguments.json else cluster.admin)
    return 0


def _given(_: argparse.Namespace) -> int:
    print(places.given_kubeconfig() or "")
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


def _tools(_: argparse.Namespace) -> int:
    tools.provide()
    return 0


def _images(arguments: argparse.Namespace) -> int:
    if arguments.clean:
        container_images.clean()
        return 0
    targets = arguments.targets or container_images.TARGETS
    for image in container_images.ensure(targets):
        print(image)
    return 0


def _load(arguments: argparse.Namespace) -> int:
    targets = arguments.targets or list(container_images.TARGETS)
    _load_into(_existing(arguments.name), targets)
    return 0


def _load_into(cluster: Cluster, targets: list[str]) -> None:
    for target in targets:
        if target.endswith(".tar"):
            node.load(cluster, Path(target))
    for image in container_images.ensure(each for each in targets if not each.endswith(".tar")):
        if image.archive is not None:
            node.load(cluster, image.archive)
        if image.descriptor is not None:
            layout = container_images.layout()
            node.load_shared(cluster, layout, image.descriptor, image.reference)


def _existing(name: str) -> Cluster:
    cluster = Cluster(name)
    if not cluster.exists:
        raise ClusterError(f"Cluster {name} is not there: bring it up first (`up --name {name}`).")
    return cluster


if __name__ == "__main__":
    sys.exit(main())
