"""The node's addresses, routes and packet filter, and how they go away again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import binaries
from cluster import BRIDGE, BRIDGE_ADDRESS, POD_RANGE, SERVICE_RANGE, Cluster
from failure import ClusterError

_CHAIN = "RETRAINER-FORWARD"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def prepare(cluster: Cluster) -> None:
    """A bridge without ports carries the node's address, so nothing listens on a real network.

    Pods are not on the bridge: each has its own pair of interfaces (ptp), routed by the host. On a
    bridge, answers from pod to pod would pass by the packet filter unless br_netfilter is loaded.
    """
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
        _run("ip", "address", "add", f"{BRIDGE_ADDRESS}/32", "dev", BRIDGE)
        _run("ip", "link", "set", BRIDGE, "up")
        # So that the host reaches Services from the node's address, with or without a default route.
        _run("ip", "route", "add", SERVICE_RANGE, "dev", BRIDGE, "src", BRIDGE_ADDRESS)
    if cluster.recall("ip_forward") is None:
        if _quietly("iptables", "-w", "-t", "nat", "-S", "KUBE-SERVICES"):
            raise ClusterError(
                "Another Kubernetes node has its rules in this machine's packet filter "
                "(chain KUBE-SERVICES): two would take each other's away. "
                "If it is there no more, `kube-proxy --cleanup` removes them."
            )
        cluster.remember("ip_forward", _FORWARDING.read_text().strip())
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
    _FORWARDING.write_text(before)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(command)} failed: {done.stderr.strip()}")


def _quietly(*command: str) -> bool:
    """For what may be there or not; whether it was."""
    return subprocess.run(command, capture_output=True, check=False, timeout=60).returncode == 0
