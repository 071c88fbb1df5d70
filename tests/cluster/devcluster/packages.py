"""Programs that come from Debian's packages, since they are no Go modules of ours."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.cluster.devcluster.failure import ClusterError, say

# Package -> a file of it, or a program on the PATH.
NODE = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "util-linux": "nsenter",
}
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}


def ensure(packages: dict[str, str]) -> None:
    """Install those that are missing, where that is ours to do; else say what to install."""
    missing = [package for package, file in packages.items() if shutil.which(file) is None]
    if not missing:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if not Path("/etc/debian_version").exists() or os.geteuid() != 0:
        raise ClusterError(
            f"Missing here: {', '.join(missing)}. On Debian, as root: {' '.join(command)}"
        )
    say(f"installing {', '.join(missing)} ...")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for attempt in (command, ["apt-get", "update"], command):
        # The second and third: the lists of packages may be old or not there.
        done = subprocess.run(attempt, env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0 and attempt is command:
            return
    raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-1500:]}")


def need_root() -> None:
    if os.uname().sysname != "Linux":
        raise ClusterError("A node needs Linux; elsewhere use KUBECONFIG with a kind cluster.")
    if os.geteuid() != 0:
        raise ClusterError("A node needs root: containers, network interfaces and mounts.")
