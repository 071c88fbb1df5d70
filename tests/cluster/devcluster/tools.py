"""What the tests need beyond Python: whether this machine has it, and how it comes by it."""

import os
import shutil
import sys

from tests.cluster.devcluster import binaries, packages
from tests.cluster.devcluster.failure import ClusterError, say

WITHOUT_CLUSTER = ("versitygw", "rclone", "helm")
"""Programs that tests start which need no cluster."""


def lacking(tool: str) -> str:
    """What to do so that this machine has it, as the end of a sentence; empty if it has.

    `cluster`: a Kubernetes cluster can be started, or one is given. `promtool`, `chromium`,
    `helm`, `versitygw`, `rclone`: that program is there.
    """
    if tool == "cluster":
        return _lacking_for_a_cluster()
    if tool == "promtool":
        return "" if shutil.which("promtool") else _install(["prometheus"])
    if tool == "chromium":
        return "" if shutil.which("chromium") else _install(["chromium"])
    return "" if binaries.path(tool).exists() else "`make tools` builds it"


def provide() -> None:
    """Install and build all of it, or say what this machine lacks for the rest.

    Raises:
        ClusterError: what could be installed or built here was not.
    """
    absent = packages.missing(packages.ALL)
    if packages.can_install():
        packages.ensure(packages.ALL)
    elif absent:
        say(f"Not installed here: {', '.join(absent)}. {packages.advice(absent)}")
    reason = _lacking_for_a_cluster()
    if reason:
        say(f"Tests on a real cluster are left out: {reason}.")
    try:
        binaries.ensure(WITHOUT_CLUSTER if reason else binaries.BINARIES)
    except ClusterError as error:
        if packages.can_install():
            raise
        say(f"{error}")


def _lacking_for_a_cluster() -> str:
    if os.environ.get("KUBECONFIG"):
        return ""
    if sys.platform != "linux":
        return "it needs Linux (or a cluster given by KUBECONFIG)"
    if os.geteuid() != 0:
        return "it needs root (or a cluster given by KUBECONFIG)"
    absent = packages.missing(packages.NODE | packages.IMAGES)
    if absent:
        return _install(absent)
    return ""


def _install(names: list[str]) -> str:
    by_hand = packages.advice(names)
    return "`make tools` installs it" if packages.can_install() else by_hand
