"""Nodes that exist only as objects: kwok sets the status of their pods, nothing runs.

Thousands of pods for a bench, or a pod that ends as a test wants it (see kwok-stages.yaml).
"""

from tests.cluster.devcluster import binaries, controlplane, places
from tests.cluster.devcluster.cluster import Cluster
from tests.cluster.devcluster.process import Component

_ANNOTATION = "kwok.x-k8s.io/node"


def start(cluster: Cluster) -> None:
    """kwok itself, and the nodes that it plays."""
    cluster.apply(*(_node(number) for number in range(cluster.settings.simulated_nodes)))
    port = cluster.port("kwok")
    user = cluster.user_kubeconfig("kwok", ("system:masters",))
    command = [
        str(binaries.path("kwok")),
        f"--kubeconfig={user}",
        f"--config={places.FOLDER / 'kwok-stages.yaml'}",
        f"--manage-nodes-with-annotation-selector={_ANNOTATION}=fake",
        "--node-lease-duration-seconds=40",
        f"--server-address=127.0.0.1:{port}",
    ]
    controlplane.run(cluster, Component("kwok", command, f"http://127.0.0.1:{port}/healthz"))


def _node(number: int) -> dict[str, object]:
    name = f"simulated-{number}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {_ANNOTATION: "fake"},
            "labels": {
                "type": "kwok",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
            },
        },
    }
