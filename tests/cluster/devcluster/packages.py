"""Programs that come from Debian's packages, since they are no Go modules of ours."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.devcluster.failure import ClusterError, say

# Package -> a file of it, or a program on the PATH.
CONTROL_PLANE = {"openssl": "openssl", "util-linux": "nsenter"}
NODE = {
    **CONTROL_PLANE,
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
}
IMAGES = {"buildah": "buildah", "mmdebstrap": "mmdebstrap"}
PROMTOOL = {"prometheus": "promtool"}
BROWSER = {"chromium": "chromium"}
ALL = NODE | IMAGES | PROMTOOL | BROWSER
"""What the tests need of Debian, beside Python, make and git."""
_SERVICES = Path("/usr/sbin/policy-rc.d")


def missing(packages: dict[str, str]) -> list[str]:
    """Those of the packages that are not installed."""
    return [package for package, file in packages.items() if shutil.which(file) is None]


def can_install() -> bool:
    """Whether this is Debian, and ours to change."""
    return Path("/etc/debian_version").exists() and os.geteuid() == 0


def advice(names: list[str]) -> str:
    """What to run to have these packages."""
    return f"On Debian, as root: {' '.join(_command(names))}"


def ensure(packages: dict[str, str]) -> None:
    """Install those that are missing, where that is ours to do; else say what to install."""
    names = missing(packages)
    if not names:
        return
    if not can_install():
        raise ClusterError(f"Missing here: {', '.join(names)}. {advice(names)}")
    say(f"installing {', '.join(names)} ...")
    command = _command(names)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    output = ""
    with _services_stay_off():
        for attempt in (command, ["apt-get", "update"], command):
            # The second and third: the lists of packages may be old or not there.
            done = subprocess.run(
                attempt, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode == 0 and attempt is command:
                return
            output = done.stdout + done.stderr
    raise ClusterError(f"{' '.join(command)} failed:\n{output[-1500:]}")


def need_root() -> None:
    if os.uname().sysname != "Linux":
        raise ClusterError("A node needs Linux; elsewhere use KUBECONFIG with a kind cluster.")
    if os.geteuid() != 0:
        raise ClusterError("A node needs root: containers, network interfaces and mounts.")


def _command(names: list[str]) -> list[str]:
    return ["apt-get", "install", "-y", "--no-install-recommends", *names]


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Debian starts the services of what it installs; only the programs are wanted here."""
    if _SERVICES.exists():  # somebody's own policy, which is left alone
        yield
        return
    _SERVICES.write_text("#!/bin/sh\nexit 101\n")
    _SERVICES.chmod(0o755)
    try:
        yield
    finally:
        _SERVICES.unlink()
