"""A node's addresses and rules, on a real kernel, in a network of the test's own."""

import os
import subprocess
import sys
import tempfile

import pytest
from tests.support import devcluster_tool

pytestmark = pytest.mark.cluster

# The first node gets its network and then is no more, nor is its folder: what a crash leaves.
_AFTER_A_CRASH = """
import socket, subprocess
from tests.cluster.devcluster import network
from tests.cluster.devcluster.cluster import BRIDGE_ADDRESS, Cluster, Settings
from tests.cluster.devcluster.failure import ClusterError

def node(name):
    cluster = Cluster(name)
    cluster.create(Settings(size="node"))
    return cluster

def rules():
    return subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout

subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
network.prepare(node("crashed"))
subprocess.run(["iptables", "-w", "-t", "nat", "-N", "KUBE-SERVICES"], check=True)
"""


def _run(script: str) -> str:
    """What the script prints in a network namespace that ends with it."""
    # pytest's own folders are too long for the paths of a node's sockets.
    with tempfile.TemporaryDirectory(prefix="node-") as state:
        return _run_in(state, script)


def _run_in(state: str, script: str) -> str:
    devcluster_tool.binary("kube-proxy")
    environment = os.environ | {
        "RETRAINER_STATE": state,
        "PYTHONPATH": str(devcluster_tool.CHECKOUT),
    }
    # The new namespace's interfaces are seen in a sysfs mounted there, not in the old one.
    inside = 'mount -t sysfs sysfs /sys && exec "$@"'
    python = [sys.executable, "-c", _AFTER_A_CRASH + script]
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", inside, "sh", *python],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_a_crashed_node_left_makes_way_for_the_next() -> None:
    printed = _run(
        """
next = node("next")
network.prepare(next)
assert "KUBE-SERVICES" not in rules()
print(subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True).stdout)
print(rules().count("-A FORWARD -j RETRAINER-FORWARD"))
network.remove(next)
print("left:", subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True).stdout)
assert "RETRAINER" not in rules()
""",
    )

    before, _, left = printed.partition("left:")
    assert "10.187.0.1/32" in before
    assert before.split()[-1] == "1"
    assert "retrainer0" not in left


def test_a_living_node_is_spared() -> None:
    printed = _run(
        """
api_server = socket.create_server((BRIDGE_ADDRESS, 6443))
try:
    network.prepare(node("next"))
except ClusterError as error:
    print(error)
assert "KUBE-SERVICES" in rules()
assert "RETRAINER-FORWARD" in rules()
""",
    )

    assert "Another node of this tool runs on this machine" in printed


def test_rules_of_a_node_that_is_not_ours_are_spared() -> None:
    printed = _run(
        """
subprocess.run(["ip", "link", "delete", "retrainer0"], check=True)
try:
    network.prepare(node("next"))
except ClusterError as error:
    print(error)
assert "KUBE-SERVICES" in rules()
""",
    )

    assert "Another Kubernetes node has its rules" in printed
