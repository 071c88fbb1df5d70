"""The node's addresses, routes and packet filter, and how they go away again."""

import subprocess
from pathlib import Path

from tests.cluster.devcluster import binaries
from tests.cluster.devcluster.cluster import (
    BRIDGE,
    BRIDGE_ADDRESS,
    POD_RANGE,
    SERVICE_RANGE,
    Cluster,
)
from tests.cluster.devcluster.failure import ClusterError, say

_CHAIN = "RETRAINER-FORWARD"
_BRIDGE = Path(f"/sys/class/net/{BRIDGE}")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def prepare(cluster: Cluster) -> None:
    """A bridge without ports carries the node's address, so nothing listens on a real network.

    Pods are not on the bridge: each has its own pair of interfaces (ptp), routed by the host. On a
    bridge, answers from pod to pod would pass by the packet filter unless br_netfilter is loaded.
    """
    if cluster.recall("ip_forward") is None:
        _make_way()
        cluster.remember("ip_forward", _FORWARDING.read_text().strip())
    if not _BRIDGE.exists():
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "address", "add", f"{BRIDGE_ADDRESS}/32", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        # So that the host reaches Services from the node's address, with or without a default route.
        _run("ip", "route", "add", SERVICE_RANGE, "dev", BRIDGE, "src", BRIDGE_ADDRESS)
    _FORWARDING.write_text("1")
    # Docker's packages drop what is forwarded: let the pods' packets through before its rules.
    _quietly("iptables", "-w", "-N", _CHAIN)
    _run("iptables", "-w", "-F", _CHAIN)
    for side in ("-s", "-d"):
        _run("iptables", "-w", "-A", _CHAIN, side, POD_RANGE, "-j", "ACCEPT")
    _quietly("iptables", "-w", "-D", "FORWARD", "-j", _CHAIN)
    _run("iptables", "-w", "-I", "FORWARD", "-j", _CHAIN)


def remove(cluster: Cluster) -> None:
    """Also right when `prepare` got only half way."""
    before = cluster.recall("ip_forward")
    if before is None:  # nothing was prepared; the rules here may be another node's
        return
    _clean()
    _FORWARDING.write_text(before)


def _make_way() -> None:
    """Remove what a node has left that was killed, its folder perhaps deleted; spare a living one."""
    if _BRIDGE.exists():
        # Its API server and kubelet listen there as long as the node lives.
        if _run("ss", "--no-header", "--listening", "--tcp", "src", BRIDGE_ADDRESS):
            raise ClusterError(
                "Another node of this tool runs on this machine "
                f"(see `ss -ltnp src {BRIDGE_ADDRESS}`): there can be one at a time. "
                "Take it down with the RETRAINER_STATE that it was brought up with."
            )
        say("removing the addresses and rules of a node that ended without being taken down")
        _clean()
    if _quietly("iptables", "-w", "-t", "nat", "-S", "KUBE-SERVICES"):
        raise ClusterError(
            "Another Kubernetes node has its rules in this machine's packet filter "
            "(chain KUBE-SERVICES): two would take each other's away. "
            "If it is there no more, `kube-proxy --cleanup` removes them."
        )


def _clean() -> None:
    _quietly(str(binaries.path("kube-proxy")), "--cleanup")
    for family in ("iptables", "ip6tables"):
        # kube-proxy leaves this one for the kubelet, which is told not to want it.
        for place in ("INPUT", "OUTPUT"):
            _quietly(family, "-w", "-D", place, "-j", "KUBE-FIREWALL")
        _quietly(family, "-w", "-F", "KUBE-FIREWALL")
        _quietly(family, "-w", "-X", "KUBE-FIREWALL")
    _quietly("iptables", "-w", "-D", "FORWARD", "-j", _CHAIN)
    _quietly("iptables", "-w", "-F", _CHAIN)
    _quietly("iptables", "-w", "-X", _CHAIN)
    _quietly("ip", "link", "delete", BRIDGE)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def _quietly(*command: str) -> bool:
    """For what may be there or not; whether it was."""
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
